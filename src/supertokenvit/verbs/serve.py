"""`supertokenvit serve`: answers over HTTP until a signal ends it."""

from collections.abc import Sequence

from . import parser_of


def run(words: Sequence[str]) -> None:
    """Reads the options and does it."""
    from ..serving.command import parse_and_serve

    parse_and_serve(parser_of("serve"), words)
