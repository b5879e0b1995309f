"""`supertokenvit predict`: says what is on images."""

from collections.abc import Sequence

from . import parser_of
from .options import ANSWERS, MODEL, add_use


def run(words: Sequence[str]) -> None:
    """Reads the options and does it."""
    from ..command_line import PositiveInt

    parser = parser_of("predict")
    parser.add_argument("images", type=str, nargs="+", help="Files, or folders of them")
    parser.add_argument("--model", type=str, default=None, help=f"{MODEL}; the best of those")
    parser.add_argument("--out", type=str, default=None, help=ANSWERS)
    parser.add_argument("--json", action="store_true", help="Print a line of JSON for each image")
    parser.add_argument("--topk", type=PositiveInt, default=5, help="Classes to name")
    parser.add_argument("--explain", type=str, default=None, help="Folder for pictures of what spoke for each answer")
    add_use(parser)
    given = parser.parse_args(list(words)).as_dict()
    from ..answers import predict_and_print

    predict_and_print(given.pop("images"), given.pop("model"), as_json=given.pop("json"), **given)
