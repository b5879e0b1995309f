"""Options of the command line: parsing, headings of the help, and errors in one line of plain words."""

import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, set_parsing_settings
from jsonargparse.typing import NonNegativeInt as NonNegativeInt
from jsonargparse.typing import PositiveInt as PositiveInt

from .errors import UserError

set_parsing_settings(docstring_parse_attribute_docstrings=True)

FAILED, USAGE_ERROR, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141  # the last two as shells count signals
NEEDS_LESS = {
    "train": "a smaller --batch_size needs less, parts of one by --accumulate too, and --grad_checkpointing true",
    "evaluate": "a smaller --batch_size needs less",
    "predict": "a smaller --img_size needs less",
}
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}
KINDS |= {"dict": "names with values, as {'name': 1}", "list": "a list, as [1, 2]"}


class Parser(ArgumentParser):
    """jsonargparse's parser, with errors of one line that name the nearest option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints the message and ends with code 2."""
        text = plain(" ".join(message.split()))
        known = [a.dest for a in self._actions if a.dest != "help"]
        for word in text.replace("'", " ").replace('"', " ").replace("=", " ").split():
            name = word.removeprefix("--")
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            if (
                near
                and name not in known
                and ("not accepted" in text or "unrecognized" in text or "not expected" in text)
            ):
                text += f"; did you mean {near[0]}?"
                break
        fail(f"{text} (supertokenvit {self.prog.split()[-1]} --help lists the options)", USAGE_ERROR)

    def check_file_of(self, option: str, words: Sequence[str]) -> None:
        """Ends the command with one line if a file that an option names is no YAML text with names and values.

        Args:
            option: Such as --recipe.
            words: The words of the command line.
        """
        given = [word.partition("=")[2] for word in words if word.startswith(f"{option}=")]
        given += [after for word, after in zip(words, words[1:], strict=False) if word == option]
        for path in map(Path, given):
            if path.is_file():
                try:
                    content = yaml.safe_load(path.read_bytes().decode("utf-8-sig"))
                except UnicodeDecodeError as error:
                    self.error(f"{option} {path}: not in UTF-8 ({error.reason} at byte {error.start}); save it so")
                except yaml.YAMLError as error:
                    self.error(f"{option} {path}: not readable as YAML: {error}")
                if content is None:
                    self.error(f"{option} {path}: there is nothing in it")
                if not isinstance(content, dict):
                    self.error(f"{option} {path}: expected lines like epochs: 30")

    def put_under_headings(self, headings: Mapping[str, Sequence[str]]) -> None:
        """Shows options under headings in the help, in the order of the headings.

        Args:
            headings: Names of options by heading.
        """
        actions = {action.dest: action for action in self._actions}
        for heading, names in headings.items():
            group = self.add_argument_group(heading)
            for name in names:
                for other in self._action_groups:
                    if actions[name] in other._group_actions:
                        other._group_actions.remove(actions[name])
                group._group_actions.append(actions[name])
        filled = [group for group in self._action_groups if group._group_actions]
        mine = [group for group in filled if group.title in headings]
        self._action_groups = mine + [group for group in filled if group not in mine]


def plain(text: str) -> str:
    """Says jsonargparse's message about a value of the wrong kind in words of the command line; others as they are."""
    text = re.sub(r'^Parser key "([\w.]+)": ', r"--\1: ", text)
    text = re.sub(r"^(--\w+): Not of type \w+: (\S+) does not conform to restriction v", r"\1 \2: must be ", text)
    text = re.sub(r"^(--\w+): Not of type \w+: invalid literal .*: '(.*?)'", r"\1 \2: must be a whole number", text)
    found = re.fullmatch(r"--([\w.]+): (.*Expected .*?)\.? (?:Given value:|Got value:) ?(.*)", text)
    if found is None:
        return text
    key, expected, value = found.groups()
    kinds = re.findall(r"Expected an? (?:<class '(\w+)'>|typing\.Literal\[(.*?)\])", expected)
    named = [KINDS.get(kind, kind) or re.sub("'(.*?)',? ?", r"\1 or ", choices)[:-4] for kind, choices in kinds]
    return f"--{key} {value}: must be {' or '.join(dict.fromkeys(named))}"


def same_option(word: str) -> str:
    """Writes an option with underscores: --img-size and --img_size are the same."""
    if not word.startswith("--"):
        return word
    name, *value = word.split("=", 1)
    return "=".join(["--" + name[2:].replace("-", "_"), *value])


def accept_every_name() -> None:
    """Lets standard output and error show a name that their encoding does not know by the codes of its letters."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run(verb: Callable[[Sequence[str]], None], words: Sequence[str], debug: bool) -> None:
    """Calls a verb; what goes wrong, and a user can mend, is one line on standard error.

    Args:
        verb: To call with the options.
        words: The verb's name and its options.
        debug: Let errors through, with where they came from.
    """
    try:
        verb([same_option(word) for word in words[1:]])
    except BrokenPipeError:  # whoever read the output has ended, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is not written at exit either
        sys.exit(BROKEN_PIPE)
    except (UserError, OSError) as error:
        if debug:
            raise
        text = str(error) or type(error).__name__
        if "Original Traceback" in text:  # of a worker
            text = text.strip().splitlines()[-1]
        fail(text, getattr(error, "exit_code", FAILED))
    except RuntimeError as error:
        if debug or not any(words in str(error) for words in ("out of memory", "not enough memory", "can't allocate")):
            raise
        fail(f"{str(error).splitlines()[0]}; {NEEDS_LESS.get(words[0], 'a smaller model needs less')}", FAILED)
    except KeyboardInterrupt as error:
        fail(str(error) or "interrupted", getattr(error, "exit_code", INTERRUPTED))


def fail(message: str, code: int) -> NoReturn:
    """Ends the command with one line on standard error."""
    print(f"supertokenvit: {message}", file=sys.stderr)
    sys.exit(code)
