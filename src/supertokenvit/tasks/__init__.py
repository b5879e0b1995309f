"""What a model is to answer: each task has its network, samples, loss, figures and pictures.

Training, evaluation and the model folder know no other difference. The tasks of labels are here; those whose answers
have places in the image are in dense/.
"""

from supertokenvit_runtime.answers import Prediction

from .figures import ClassFigures, Evaluation, FiguresError
from .labels import Classification, Labels, MultiLabel
from .task import LogitsTask, Ragged, Task

__all__ = [
    "ClassFigures", "Classification", "Evaluation", "FiguresError", "Labels", "LogitsTask", "MultiLabel",
    "Prediction", "Ragged", "Task",
]  # fmt: skip
