"""`supertokenvit push`: puts a trained model on the Hugging Face Hub."""

from collections.abc import Sequence

from . import parser_of


def run(words: Sequence[str]) -> None:
    """Reads the options and does it."""
    parser = parser_of("push")
    parser.add_argument("model", type=str, help="Run folder")
    parser.add_argument("repository", type=str, help="OWNER/NAME")
    parser.add_argument("--private", action="store_true", help="Make a new repository private")
    given = parser.parse_args(list(words)).as_dict()
    from ..hub import push

    print(push(given.pop("model"), given.pop("repository"), **given))
