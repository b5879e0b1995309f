"""What `supertokenvit-runtime serve` does."""

import argparse
import sys
from pathlib import Path

from ..errors import UserError
from ..exported import ExportedFile
from .settings import settings_of


def serve_files(given: argparse.Namespace) -> None:
    """Serves exported files.

    Raises:
        UserError: A file cannot be used, or a package is missing.
    """
    settings = settings_of(vars(given))
    try:
        from .hosting import Source
        from .server import log_to_stderr, serve
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'supertokenvit-runtime[serve]'") from None
    log_to_stderr()
    serve([Source(Path(path), ExportedFile) for path in given.model], settings, told=say)


def say(address: str) -> None:
    """Prints where the server listens."""
    print(f"serving on {address}", file=sys.stderr, flush=True)
