"""`supertokenvit explain`: shows what in images spoke for an answer."""

from collections.abc import Sequence

from . import parser_of
from .options import METHOD, MODEL, SIDE


def run(words: Sequence[str]) -> None:
    """Reads the options and does it."""
    from ..command_line import PositiveInt

    parser = parser_of("explain")
    parser.add_argument("images", type=str, nargs="+", help="Files, or folders of them")
    parser.add_argument("--model", type=str, default=None, help=f"{MODEL}; the best of those")
    parser.add_argument("--class", dest="target", type=str, default=None, help="Class to explain; the likeliest")
    parser.add_argument("--method", **METHOD)
    parser.add_argument("--topk", type=PositiveInt, default=1, help="Classes to explain of each image")
    parser.add_argument("--windows", action="store_true", help="Draw the windows with the share of each")
    parser.add_argument("--talk", action="store_true", help="Draw which windows the most important one listened to")
    parser.add_argument("--json", action="store_true", help="Print a line of JSON for each explanation")
    parser.add_argument("--out", type=str, default="explanations", help="Folder for overlays and maps")
    parser.add_argument("--img_size", type=PositiveInt, default=None, help=SIDE)
    parser.add_argument("--device", type=str, default=None, help="cpu, cuda, mps")
    given = parser.parse_args(list(words)).as_dict()
    from ..explaining.command import explain_and_write

    explain_and_write(given.pop("images"), given.pop("model"), as_json=given.pop("json"), **given)
