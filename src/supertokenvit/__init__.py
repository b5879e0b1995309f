"""Super Token Transformers (arXiv 2111.13156) for timm, and what trains, measures and uses them.

Importing this package registers the `stt_*` models with timm, as soon as timm is imported. Nothing heavy is imported
before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wrapt import register_post_import_hook

if TYPE_CHECKING:
    from .data.checking import check
    from .errors import UserError
    from .evaluation import Evaluation, evaluate
    from .explaining.explanation import Explanation, explain
    from .exporting.export import export
    from .prediction import Prediction, Predictor, load
    from .run_folder import RunFolder
    from .training.callbacks import Event
    from .training.recipe import Recipe
    from .training.run import resume, train

__version__ = "0.1.0"
__all__ = [
    "Evaluation", "Event", "Explanation", "Prediction", "Predictor", "Recipe", "RunFolder", "UserError",
    "check", "evaluate", "explain", "export", "load", "resume", "train",
]  # fmt: skip

_HOMES = {
    "data.checking": ("check",),
    "errors": ("UserError",),
    "evaluation": ("Evaluation", "evaluate"),
    "explaining.explanation": ("Explanation", "explain"),
    "exporting.export": ("export",),
    "prediction": ("Prediction", "Predictor", "load"),
    "run_folder": ("RunFolder",),
    "training.callbacks": ("Event",),
    "training.recipe": ("Recipe",),
    "training.run": ("resume", "train"),
}


def __getattr__(name: str) -> Any:
    """Imports a public name from its room when it is asked for."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{home}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names the public ones for completion."""
    return sorted({*globals(), *__all__})


register_post_import_hook(lambda timm: import_module(".model.family", __name__), "timm")
