"""`supertokenvit neighbours`: finds near-duplicates, and the images that are nearest to each."""

from collections.abc import Sequence

from . import parser_of
from .options import REPORT


def run(words: Sequence[str]) -> None:
    """Reads the options and does it."""
    from ..command_line import PositiveInt

    parser = parser_of("neighbours")
    images = "Where the images are now, as they were named for predict; their paths in the file"
    parser.add_argument("answers", type=str, help="Parquet file of predict --embeddings")
    parser.add_argument("--images", type=str, nargs="+", default=None, help=images)
    parser.add_argument("--count", type=PositiveInt, default=5, help="Nearest others of each image")
    parser.add_argument("--out", type=str, default="neighbours.csv", help=REPORT)
    given = parser.parse_args(list(words)).as_dict()
    from ..inspecting.neighbours import find_and_write

    find_and_write(given.pop("answers"), **given)
