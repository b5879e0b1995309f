"""From a photograph to an explanation of an answer: a map in the photograph's own pixels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.decode import printable
from ..engines.torch_engine import TorchNetwork
from ..errors import UserError
from ..model.architecture import Architecture
from ..model.network import SuperTokenTransformer
from ..prediction import Picture, Predictor, read_picture
from ..preprocessing import Box, normalize
from .methods import METHODS, Maps

REGION = 0.5  # of the largest value of a map: what is as large is the strongest region
BATCH = 16  # images that are explained at once


class ExplanationError(UserError):
    """An answer that cannot be explained."""


@dataclass
class Explanation:
    """What in a photograph spoke for a class.

    Args:
        file: Path of the image, or "image N".
        label: The class.
        probability: The model's, with all its views.
        method: One of methods.METHODS.
        map: A value for each pixel of the upright photograph, float32 [height, width]; what spoke against the class may
            be negative, and what the network does not see is 0.
        box: The part of the photograph that the network sees.
        windows: The share of each window in the sum of all absolute values, float32 [gh, gw].
        window: Sides of a window, as fractions of the box's height and width; the last windows may reach beyond it.
        positive: Sum over the patches of what spoke for the class.
        negative: Sum over the patches of what spoke against it.
    """

    file: str
    label: str
    probability: float
    method: str
    map: np.ndarray
    box: Box
    windows: np.ndarray
    window: tuple[float, float]
    positive: float
    negative: float

    def strongest(self) -> Box | None:
        """Returns the smallest rectangle that holds all pixels of at least half the largest value; None without any."""
        top = self.map.max(initial=0)
        if top <= 0:
            return None
        rows, columns = np.nonzero(self.map >= REGION * top)
        return Box(float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))


def explain(
    predictor: Predictor,
    images: Picture | Iterable[Picture],
    target: str | Sequence[str] | None = None,
    *,
    method: str = "composed",
    topk: int = 1,
) -> list[Explanation]:
    """Explains answers of a Super Token Transformer: what in each photograph spoke for a class.

    The map is that of the image itself, also where the answer is the mean over several views of it.

    Args:
        predictor: From supertokenvit.load.
        images: One image or several; see Predictor.
        target: The class to explain, or one for each image; by default the likeliest ones.
        method: One of methods.METHODS.
        topk: Classes to explain of each image, if no target is named.

    Returns:
        For each image an explanation of each of its classes, in order.

    Raises:
        ExplanationError: The model is no Super Token Transformer in torch, or there is no such method or class.
        BadImage: An image cannot be read.
        OSError: A file cannot be read.

    Example:
        >>> import supertokenvit
        >>> predictor = supertokenvit.load("stt_micro.cifar10", device="cpu")
        >>> found = supertokenvit.explain(predictor, np.zeros((48, 64, 3), dtype=np.uint8), "cat")[0]
        >>> found.map.shape, found.windows.shape, found.box.left
        ((48, 64), (2, 2), 8.0)
    """
    model = network_of(predictor)
    if method not in METHODS:
        raise ExplanationError(f"method={method}: must be one of {', '.join(METHODS)}")
    one = isinstance(images, (str, bytes, Image.Image, np.ndarray)) or hasattr(images, "__fspath__")
    pictures: list[Any] = [images] if one else list(images)  # type: ignore[arg-type]
    wanted = [target] * len(pictures) if target is None or isinstance(target, str) else list(target)
    if len(wanted) != len(pictures):
        raise ExplanationError(f"{len(wanted)} classes for {len(pictures)} images: name one, or one for each image")
    found: list[Explanation] = []
    for start in range(0, len(pictures), BATCH):
        part = slice(start, start + BATCH)
        found += _explain_batch(predictor, model, pictures[part], wanted[part], method, topk, start)
    return found


def network_of(predictor: Predictor) -> SuperTokenTransformer:
    """Returns the network whose answers can be explained.

    Raises:
        ExplanationError: It is none of ours, or does not run in torch.
    """
    network = predictor.network
    model = network.model if isinstance(network, TorchNetwork) else None
    if not isinstance(model, SuperTokenTransformer):
        raise ExplanationError(f"{predictor.name}: no Super Token Transformer in torch, so there is no path to follow")
    if model.class_token is None or model.training:
        raise ExplanationError(f"{predictor.name}: needs a class token and eval mode to be explained")
    return model


def _explain_batch(
    predictor: Predictor,
    model: SuperTokenTransformer,
    pictures: Sequence[Picture],
    wanted: Sequence[str | None],
    method: str,
    topk: int,
    first: int,
) -> list[Explanation]:
    """Explains the answers for some images; the first of them has that number."""
    opened = [read_picture(picture) for picture in pictures]
    pixels = torch.stack([predictor.preprocess(image) for image in opened])
    with torch.inference_mode():
        probabilities = predictor.task.probabilities(predictor.logits(pixels))
    targets = [
        [class_number(predictor, name)] if name is not None else likeliest(row, topk)
        for name, row in zip(wanted, probabilities, strict=True)
    ]
    x = normalize(pixels, predictor.data_config["mean"], predictor.data_config["std"])
    device = next(model.parameters()).device
    rows = [(i, k) for i, numbers in enumerate(targets) for k in numbers]
    places, classes = (torch.tensor(column) for column in zip(*rows, strict=True))
    maps = METHODS[method](model, x[places].to(device), classes.to(device))
    found = []
    for number, (i, k) in enumerate(rows):
        picture = pictures[i]
        name = (
            printable(picture) if isinstance(picture, str) or hasattr(picture, "__fspath__") else f"image {first + i}"
        )
        said = predictor.classes[k], float(probabilities[i, k]), method
        found.append(_explanation(name, *said, maps, number, predictor, model.architecture, opened[i].size))
    return found


def class_number(predictor: Predictor, name: str) -> int:
    """Returns the number of a class.

    Raises:
        ExplanationError: The model does not know it.
    """
    if name not in predictor.classes:
        raise ExplanationError(f"class {name}: the model knows {', '.join(predictor.classes[:10])}")
    return predictor.classes.index(name)


def likeliest(probabilities: Tensor, topk: int) -> list[int]:
    """Returns the numbers of the likeliest classes, the likeliest first."""
    return probabilities.topk(min(topk, len(probabilities))).indices.tolist()


def _explanation(
    file: str,
    label: str,
    probability: float,
    method: str,
    maps: Maps,
    number: int,
    predictor: Predictor,
    architecture: Architecture,
    size: tuple[int, int],
) -> Explanation:
    """Makes the explanation of one row of a batch of maps."""
    patches, windows = maps.patches[number].float().cpu(), maps.windows[number].float().cpu()
    box = predictor.preprocess.box(size)
    stride, M = architecture.stride, architecture.window
    return Explanation(
        file=file,
        label=label,
        probability=probability,
        method=method,
        map=in_photograph(patches, box, size, predictor.preprocess.side, stride),
        box=box,
        windows=(windows / windows.abs().sum().clamp(min=1e-12)).numpy(),
        window=(stride * M / predictor.preprocess.side[0], stride * M / predictor.preprocess.side[1]),
        positive=float(patches.clamp(min=0).sum()),
        negative=float(patches.clamp(max=0).sum()),
    )


def in_photograph(patches: Tensor, box: Box, size: tuple[int, int], side: tuple[int, int], stride: int) -> np.ndarray:
    """Interpolates the values of patches [h, w] linearly at the pixels of a photograph.

    Args:
        patches: A value at the centre of each patch.
        box: The part of the photograph that the patches cover.
        size: Width and height of the photograph in pixels.
        side: Height and width of the square that the network sees, in pixels.
        stride: Side of a patch in pixels of the square.

    Returns:
        float32 [height, width]; 0 outside the box.
    """
    width, height = size
    rows = hats(height, box.top, box.bottom, side[0], stride, patches.shape[0])
    columns = hats(width, box.left, box.right, side[1], stride, patches.shape[1])
    return (rows @ patches @ columns.T).numpy()


def hats(length: int, first: float, last: float, side: int, stride: int, count: int) -> Tensor:
    """Returns the weight of each of `count` patches at each of `length` pixels [length, count]; rows outside are 0."""
    place = (torch.arange(length) + 0.5 - first) / (last - first) * side  # in pixels of the square
    centre = (place / stride - 0.5).clamp(0, count - 1)
    weights = (1 - (centre[:, None] - torch.arange(count)).abs()).clamp(min=0)
    return weights * ((place >= 0) & (place <= side))[:, None]
