"""`supertokenvit check-data`: decodes a data set and names what is wrong with it."""

from collections.abc import Sequence

from . import parser_of
from .options import add_labels


def run(words: Sequence[str]) -> None:
    """Reads the options and does it."""
    from ..command_line import PositiveInt

    parser = parser_of("check-data")
    parser.add_argument("data", type=str, help="Images, as for training")
    add_labels(parser)
    parser.add_argument("--workers", type=PositiveInt, default=None, help="Decoders at once; one for each core")
    given = parser.parse_args(list(words)).as_dict()
    from ..data.checking import check_and_print

    check_and_print(**given)
