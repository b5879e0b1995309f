"""What a user says about an export; it imports nothing heavy, so that help is quick."""

from dataclasses import dataclass
from typing import Literal, Optional

from ..errors import UserError


class ExportError(UserError):
    """A model that cannot be exported, or a file that does not answer as the model does."""


@dataclass(frozen=True)
class ExportOptions:
    """How a trained model is exported."""

    format: Literal["onnx", "openvino", "web"] = "onnx"
    """The engine that will run it: ONNX Runtime, or OpenVINO; web: a page that runs it in a browser"""
    int8: bool = False
    """Compute matrix products and convolutions in 8 bits (openvino)"""
    calibrate: Optional[str] = None
    """Images for --int8, as in training: its scales come from the training images, and it is checked on the others;
    those of the run by default"""
    tta: Literal["as-trained", "none", "flip", "shift"] = "as-trained"
    """Views of an image over which the answer is the mean"""
    input: Literal["photo", "tensor"] = "photo"
    """What the file takes: photographs of any size, or images that the caller resizes and normalises"""
    embedding: bool = False
    """Give the features before the classifier too"""
    img_size: Optional[int] = None
    """Side of the images that the network sees, in pixels; that of its training by default"""
    examples: Optional[str] = None
    """Folder of pictures that the page offers to try (web)"""
    out: Optional[str] = None
    """Folder to write; RUN/export/FORMAT by default; in an older page the model is added to those there (web)"""


def reason_of(error: Exception) -> str:
    """Returns the first line of an error's text that says anything."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
