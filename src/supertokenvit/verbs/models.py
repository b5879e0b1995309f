"""`supertokenvit models`: lists the variants."""

from collections.abc import Sequence

from . import parser_of


def run(words: Sequence[str]) -> None:
    """Reads the options and does it."""
    parser_of("models").parse_args(list(words))
    from ..model.summary import print_summaries

    print_summaries()
