"""`supertokenvit benchmark`: measures how fast models are, side by side."""

from collections.abc import Sequence

from . import parser_of
from .options import RIVALS


def run(words: Sequence[str]) -> None:
    """Reads the options and does it."""
    from ..benchmarking.options import BenchmarkOptions

    parser = parser_of("benchmark")
    parser.add_argument("models", type=str, nargs="+", help=RIVALS)
    parser.add_class_arguments(BenchmarkOptions, fail_untyped=True)
    given = parser.parse_args(list(words)).as_dict()
    from ..benchmarking.command import run_and_write

    run_and_write(given.pop("models"), BenchmarkOptions(**given))
