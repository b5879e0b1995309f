"""Predicts and serves with image classifiers that supertokenvit exported, without torch.

Nothing is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .answers import Prediction
    from .decode import BadImage
    from .errors import UsageError, UserError
    from .model import Model, load

__version__ = "0.1.0"
__all__ = ["BadImage", "Model", "Prediction", "UsageError", "UserError", "load"]

_HOMES = {
    "BadImage": "decode", "Model": "model", "Prediction": "answers", "UsageError": "errors", "UserError": "errors",
    "load": "model",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imports a public name from its module when it is asked for."""
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names the public ones for completion."""
    return sorted({*globals(), *__all__})
