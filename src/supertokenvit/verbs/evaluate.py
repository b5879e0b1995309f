"""`supertokenvit evaluate`: measures a trained model on labelled images."""

from collections.abc import Sequence

from . import parser_of
from .options import KEEP, MODEL, SIZES, SPLIT, add_use


def run(words: Sequence[str]) -> None:
    """Reads the options and does it."""
    from ..command_line import NonNegativeInt

    parser = parser_of("evaluate")
    parser.add_argument("--model", type=str, required=True, help=MODEL)
    parser.add_argument("--data", type=str, default=None, help="Images, as in training; those of the run")
    parser.add_argument("--split", **SPLIT)
    add_use(parser)
    parser.add_argument("--sizes", type=str, default=None, help=SIZES)
    parser.add_argument("--keep_size", type=str, default=None, help=KEEP)
    parser.add_argument("--skip_damaged", type=bool, default=False, help="Leave damaged images out")
    parser.add_argument("--workers", type=NonNegativeInt, default=0, help="Processes that decode")
    parser.add_argument("--out", type=str, default=None, help="Folder for the figures; by default the run folder")
    given = parser.parse_args(list(words)).as_dict()
    from ..evaluation_sizes import evaluate_sizes_and_write

    evaluate_sizes_and_write(**given)
