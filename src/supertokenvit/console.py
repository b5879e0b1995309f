"""The console on which commands speak to a person: lines, tables and progress bars."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

WIDE = 1000  # columns of what goes into a file or another program: lines there must not be broken
T = TypeVar("T")


def user_console(*, stderr: bool = False) -> Console:
    """Makes a console of the terminal's width; what is piped is not wrapped.

    Args:
        stderr: Speak on standard error.
    """
    made = Console(stderr=stderr)
    return made if is_watched(made) else Console(stderr=stderr, width=WIDE)


def is_watched(console: Console) -> bool:
    """Says whether a person sees what moves on a console."""
    return console.is_terminal or console.is_jupyter


def say(console: Console, line: str) -> None:
    """Prints a line as it is: nothing in it is markup, and the console does not break it."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def watched(things: Iterable[T], what: str, total: int, console: Console | None = None) -> Iterator[T]:
    """Passes things on with a progress bar that goes away at the end, where somebody sees it.

    Args:
        things: To pass on.
        what: Stands before the bar.
        total: How many there are.
        console: To draw on; standard output by default.
    """
    shown = console or user_console()
    yield from track(things, what, total=total, transient=True, console=shown, disable=not is_watched(shown))
