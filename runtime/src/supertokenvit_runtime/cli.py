"""The command `supertokenvit-runtime`: predict and serve with exported files."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from .errors import UserError

INTERRUPTED, BROKEN_PIPE = 130, 141  # as shells count signals


def predict(given: argparse.Namespace) -> None:
    """Prints a line for each image, of text or JSON, and names the images that cannot be read."""
    from .model import load

    model = load(given.model)
    width = min(48, max(len(name) for name in given.images))
    wrong = 0
    for answer in model.stream(given.images, given.topk):
        if given.json:
            print(json.dumps(answer.as_dict()), flush=True)
        elif answer.error is None:
            print(answer.line(width), flush=True)
        if answer.error is not None:
            wrong += 1
            print(f"supertokenvit-runtime: {answer.file}: {answer.error}", file=sys.stderr)
    if wrong:
        raise UserError(f"{wrong} image{'s' * (wrong > 1)} could not be read (named above)")


def serve(given: argparse.Namespace) -> None:
    """Serves exported files over HTTP until a signal ends it."""
    from .serving.command import serve_files

    serve_files(given)


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command line."""
    from . import __version__

    command = argparse.ArgumentParser("supertokenvit-runtime", description=__doc__.split(": ")[1], allow_abbrev=False)
    command.add_argument("--version", action="version", version=__version__)
    verbs = command.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("predict", help="say what is on images", allow_abbrev=False)
    verb.add_argument("images", nargs="+", help="image files")
    verb.add_argument("--model", required=True, help="exported .onnx or .xml file")
    verb.add_argument("--topk", type=positive, default=5, help="classes to name (5)")
    verb.add_argument("--json", action="store_true", help="print a line of JSON for each image")
    verb.set_defaults(run=predict)
    shown = argparse.ArgumentDefaultsHelpFormatter
    verb = verbs.add_parser("serve", help="answer over HTTP", allow_abbrev=False, formatter_class=shown)
    verb.add_argument(
        "--model", required=True, nargs="+", default=argparse.SUPPRESS, help="exported .onnx or .xml files"
    )
    from .serving.settings import add_options

    add_options(verb)
    verb.set_defaults(run=serve)
    return command


def positive(text: str) -> int:
    """Reads a whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number of at least 1")
    return number


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    given = parser().parse_args(argv)
    try:
        given.run(given)
    except BrokenPipeError:  # whoever read the output has ended, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is not written at exit either
        sys.exit(BROKEN_PIPE)
    except (UserError, OSError) as error:
        fail(str(error) or type(error).__name__, getattr(error, "exit_code", 1))
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)


def fail(message: str, code: int) -> NoReturn:
    """Ends the command with one line on standard error."""
    print(f"supertokenvit-runtime: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
