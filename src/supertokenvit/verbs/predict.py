"""`supertokenvit predict`: says what is on images."""

from collections.abc import Sequence

from . import parser_of
from .options import ANSWERS, MODEL, add_use

IN_PARTS = ("processes", "cluster", "resume", "embeddings")  # any of them writes one Parquet file in parts


def run(words: Sequence[str]) -> None:
    """Reads the options and does it."""
    from ..command_line import PositiveInt

    parser = parser_of("predict")
    images = "Files, or folders of them; with --processes also archives, and shards as PATH-{000..010}.tar"
    parts = "Processes that answer, each with its share of the cores, into --out NAME.parquet"
    parser.add_argument("images", type=str, nargs="+", help=images)
    parser.add_argument("--model", type=str, default=None, help=f"{MODEL}, or an exported file; the best of those")
    parser.add_argument("--out", type=str, default=None, help=ANSWERS)
    parser.add_argument("--json", action="store_true", help="Print a line of JSON for each image")
    parser.add_argument("--topk", type=PositiveInt, default=5, help="Classes to name")
    parser.add_argument("--explain", type=str, default=None, help="Folder for pictures of what spoke for each answer")
    parser.add_argument("--processes", type=PositiveInt, default=None, help=parts)
    parser.add_argument("--cluster", choices=["ray"], default=None, help="Answer on all machines of a Ray cluster")
    parser.add_argument("--resume", action="store_true", help="Go on with the --out NAME.parquet of a killed command")
    parser.add_argument("--embeddings", action="store_true", help="Write what the classifier sees into it, too")
    add_use(parser)
    given = parser.parse_args(list(words)).as_dict()
    given["as_json"], in_parts = given.pop("json"), {name: given.pop(name) for name in IN_PARTS}
    if any(in_parts.values()):
        from ..bulk.command import predict_in_shards

        predict_in_shards(**given, **in_parts)
        return
    from ..answers import predict_and_print

    predict_and_print(**given)
