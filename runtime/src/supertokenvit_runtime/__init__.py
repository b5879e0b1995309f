"""Predicts and serves with image classifiers that supertokenvit exported, without torch."""

from .answers import Prediction
from .decode import BadImage
from .errors import UsageError, UserError
from .model import Model, load

__version__ = "0.1.0"
__all__ = ["BadImage", "Model", "Prediction", "UsageError", "UserError", "load"]
