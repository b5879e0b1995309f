"""What `supertokenvit serve` does."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from supertokenvit_runtime.exported import ExportedFile
from supertokenvit_runtime.serving.settings import add_options, settings_of
from supertokenvit_runtime.sessions import SESSIONS

from ..errors import UserError

SERVED = "Run folders, exported files, or models that come with the package; the first one answers by default"
FILES, MODELS = "supertokenvit_runtime.serving.preload", "supertokenvit.serving.engine"


def parse_and_serve(parser: Any, argv: Sequence[str]) -> None:
    """Reads the options and serves.

    Args:
        parser: Of the command line.
        argv: The words behind the verb.
    """
    parser.add_argument("--model", type=str, nargs="+", required=True, help=SERVED)
    add_options(parser, dash="_")
    serve_models(**parser.parse_args(list(argv)).as_dict())


def serve_models(model: Sequence[str], **options: Any) -> None:
    """Serves models over HTTP until a signal ends it.

    Args:
        model: Run folders, exported files, or names of models that come with the package.
        **options: Values of the options of supertokenvit_runtime.serving.settings.

    Raises:
        UserError: A model cannot be served, or a package is missing.
    """
    settings = settings_of(options)
    try:
        from supertokenvit_runtime.serving.server import log_to_stderr, serve
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'supertokenvit[serve]'") from None
    log_to_stderr()
    sources = [source_of(path) for path in model]
    preload = [FILES] if all(is_file(path) for path in model) else [FILES, MODELS]

    def told(address: str) -> None:
        print(f"serving on {address}", file=sys.stderr, flush=True)

    serve(sources, settings, preload, told)


def is_file(path: str) -> bool:
    """Whether a path names an exported file, by its ending."""
    return Path(path).suffix.lower() in SESSIONS


def source_of(path: str) -> Any:
    """Returns what the server loads for a model, named as people call it."""
    from supertokenvit_runtime.serving.hosting import Source

    if is_file(path):
        return Source(Path(path), ExportedFile)
    from ..model_folder import read_config
    from .engine import TorchEngine

    folder = read_config(path)[0]
    of_run = folder.name == "model"  # the model folder of a run, which has the name
    return Source(folder, partial(TorchEngine, name=folder.resolve().parent.name if of_run else folder.name))
