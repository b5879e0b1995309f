"""Answers for places of an image instead of the whole of it; and the table of all tasks."""

from ..tasks import Classification, MultiLabel, Task
from .detection import Detection
from .segmentation import Segmentation

TASKS: dict[str, type[Task]] = {task.name: task for task in (Classification, MultiLabel, Segmentation, Detection)}
