"""`supertokenvit suspects`: names labels that are likely wrong."""

from collections.abc import Sequence

from . import parser_of
from .options import MODEL, REPORT


def run(words: Sequence[str]) -> None:
    """Reads the options and does it."""
    from ..command_line import PositiveInt

    parser = parser_of("suspects")
    split = "Split of it; val, or else test, or else all; a model may know wrong labels of train by heart"
    parser.add_argument("--model", type=str, required=True, help=f"{MODEL}, or an exported file")
    parser.add_argument("--data", type=str, default=None, help="Images, as in training; those of the run")
    parser.add_argument("--split", choices=["val", "test", "train"], default=None, help=split)
    parser.add_argument("--batch_size", type=PositiveInt, default=64, help="Images at once")
    parser.add_argument("--device", type=str, default=None, help="cpu, cuda, mps")
    parser.add_argument("--out", type=str, default="suspects.csv", help=REPORT)
    given = parser.parse_args(list(words)).as_dict()
    from ..inspecting.suspects import find_and_write

    find_and_write(given.pop("model"), **given)
