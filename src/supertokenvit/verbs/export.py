"""`supertokenvit export`: writes a trained model as one file for other engines."""

from collections.abc import Sequence

from . import parser_of
from .options import MODEL


def run(words: Sequence[str]) -> None:
    """Reads the options and does it."""
    from ..exporting.options import ExportOptions

    parser = parser_of("export")
    parser.add_argument("model", type=str, help=MODEL)
    parser.add_class_arguments(ExportOptions, fail_untyped=True)
    given = parser.parse_args(list(words)).as_dict()
    from ..exporting.export import export

    print(export(given.pop("model"), print, **given))
