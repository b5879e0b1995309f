"""This module imports optional packages on demand, and names the extra to install if one is missing."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from ..errors import UserError


class EngineError(UserError):
    """Reports that an engine cannot run a network."""


def need(package: str, extra: str = "export") -> Any:
    """Imports a package of an extra.

    Raises:
        EngineError: It is not installed.
    """
    try:
        with quiet():
            return import_module(package)
    except ImportError as error:
        raise EngineError(f"{package} is not installed: pip install 'supertokenvit[{extra}]'") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps libraries from printing, logging and warning."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
