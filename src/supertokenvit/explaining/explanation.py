"""From a photograph to an explanation of an answer: a map in the photograph's own pixels."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from supertokenvit_runtime.decode import Picture, read_picture

from ..data.decode import printable
from ..engines.torch_engine import TorchNetwork
from ..errors import UserError
from ..model.network import SuperTokenTransformer
from ..prediction import Predictor
from ..preprocessing import Box, Preprocess, normalize
from ..tasks import Labels
from .grad_cam import grad_cam
from .methods import SUPER_TOKEN_METHODS, Maps

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
        method: How it was found.
        patches: A value for each patch, float32 [h, w]; what spoke against the class may be negative.
        patch: Height and width of a patch in pixels of the photograph; the last ones may reach beyond the box.
        box: The part of the photograph that the network sees.
        size: Width and height of the photograph.
        windows: The share of each window in the sum of all absolute values, float32 [gh, gw]; None of a model that has
            none.
        window: Height and width of a window in pixels of the photograph; None of a model that has none.
    """

    file: str
    label: str
    probability: float
    method: str
    patches: np.ndarray
    patch: tuple[float, float]
    box: Box
    size: tuple[int, int]
    windows: np.ndarray | None = None
    window: tuple[float, float] | None = None

    @cached_property
    def map(self) -> np.ndarray:
        """A value for each pixel of the upright photograph, float32 [height, width]; 0 where the network sees nothing.

        The values of the patches, interpolated linearly.
        """
        width, height = self.size
        rows = hats(height, self.box.top, self.box.bottom, self.patch[0], self.patches.shape[0])
        columns = hats(width, self.box.left, self.box.right, self.patch[1], self.patches.shape[1])
        return (rows @ torch.from_numpy(self.patches) @ columns.T).numpy()

    @property
    def positive(self) -> float:
        """Sum over the patches of what spoke for the class."""
        return float(self.patches.clip(min=0).sum())

    @property
    def negative(self) -> float:
        """Sum over the patches of what spoke against it."""
        return float(self.patches.clip(max=0).sum())

    def strongest(self) -> Box | None:
        """Returns the smallest rectangle that holds all pixels of at least half the largest value; None without any."""
        values = self.map
        top = values.max(initial=0)
        if top <= 0:
            return None
        rows, columns = np.nonzero(values >= REGION * top)
        return Box(float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))


def explain(
    predictor: Predictor,
    images: Picture | Iterable[Picture],
    target: str | Sequence[str] | None = None,
    *,
    method: str | None = None,
    topk: int = 1,
) -> list[Explanation]:
    """Explains answers: what in each photograph spoke for a class.

    Where the answer is a mean over views that are mirrored, the map is the mean over the image and its mirror image:
    the map of a mirrored photograph is then the mirrored map. This needs a size that fills whole windows; at others the
    map is that of the image itself.

    Args:
        predictor: From supertokenvit.load.
        images: One image or several; see Predictor.
        target: The class to explain, or one for each image; by default the likeliest ones.
        method: One of METHODS; by default the first, "composed", and "gradcam" for models of other families.
        topk: Classes to explain of each image, if no target is named.

    Returns:
        For each image an explanation of each of its classes, in order.

    Raises:
        ExplanationError: The model does not run in torch, or there is no such method or class for it.
        EngineError: The library of Grad-CAM is not installed.
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
    named = method_of(predictor, model, method)
    one = isinstance(images, (str, bytes, Image.Image, np.ndarray)) or hasattr(images, "__fspath__")
    pictures: list[Any] = [images] if one else list(images)  # type: ignore[arg-type]
    wanted = [target] * len(pictures) if target is None or isinstance(target, str) else list(target)
    if len(wanted) != len(pictures):
        raise ExplanationError(f"{len(wanted)} classes for {len(pictures)} images: name one, or one for each image")
    found: list[Explanation] = []
    for start in range(0, len(pictures), BATCH):
        part = slice(start, start + BATCH)
        found += _explain_batch(predictor, model, pictures[part], wanted[part], named, topk, start)
    return found


def network_of(predictor: Predictor) -> nn.Module:
    """Returns the network whose answers can be explained.

    Raises:
        ExplanationError: It does not run in torch, is in training mode, or looks at images in their own shape.
    """
    network = predictor.network
    if not isinstance(predictor.task, Labels):
        raise ExplanationError(
            f"{predictor.name}: answers with {predictor.task.name}, and only labels can be explained"
        )
    if not isinstance(network, TorchNetwork) or not isinstance(network.model, nn.Module):
        raise ExplanationError(f"{predictor.name}: needs a model in torch to be explained")
    if network.model.training:
        raise ExplanationError(f"{predictor.name}: needs eval mode to be explained")
    if predictor.preprocess.mode == "keep":
        raise ExplanationError(f"{predictor.name}: only squares are explained; load it without resize=keep")
    return network.model


def follows_super_tokens(predictor: Predictor) -> bool:
    """Says whether answers can be explained by the path through Super tokens."""
    network = predictor.network
    model = network.model if isinstance(network, TorchNetwork) else None
    ours = isinstance(model, SuperTokenTransformer) and model.class_token is not None
    return ours and predictor.preprocess.mode != "keep"


def method_of(predictor: Predictor, model: nn.Module, method: str | None) -> str:
    """Returns the name of the method for a model.

    Raises:
        ExplanationError: There is no such method, or not for this model.
    """
    ours = isinstance(model, SuperTokenTransformer)
    if method is None:
        method = "composed" if ours else "gradcam"
    if method not in METHODS:
        raise ExplanationError(f"method={method}: must be one of {', '.join(METHODS)}")
    if method != "gradcam" and not ours:
        raise ExplanationError(f"{predictor.name}: {method} follows Super tokens, and it has none; take method=gradcam")
    if ours and model.class_token is None:
        raise ExplanationError(f"{predictor.name}: needs a class token to be explained")
    return method


def _explain_batch(
    predictor: Predictor,
    model: nn.Module,
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
    maps = seen_both_ways(METHODS[method], model, x[places].to(device), classes.to(device), predictor.card.tta)
    found = []
    for number, (i, k) in enumerate(rows):
        picture = pictures[i]
        name = (
            printable(picture) if isinstance(picture, str) or hasattr(picture, "__fspath__") else f"image {first + i}"
        )
        found.append(
            Explanation(
                file=name,
                label=predictor.classes[k],
                probability=float(probabilities[i, k]),
                method=method,
                **placed(maps, number, predictor.preprocess, opened[i].size, model),
            )
        )
    return found


def seen_both_ways(method: "Method", model: nn.Module, images: Tensor, target: Tensor, tta: str) -> Maps:
    """Explains images, and with views that are mirrored also their mirror images, and returns the mean.

    Args:
        method: One of METHODS.
        model: In eval mode.
        images: Normalised [B, in_chans, H, W].
        target: The class of each image [B].
        tta: Views of the answer (see preprocessing.views).
    """
    side = model.architecture.stride * model.architecture.window if isinstance(model, SuperTokenTransformer) else 1
    if tta == "none" or images.shape[3] % side:
        return method(model, images, target)
    both = method(model, torch.cat([images, images.flip(3)]), torch.cat([target, target]))
    windows = None if both.windows is None else mean_of_mirrored(both.windows)
    plain, mirrored = both.logits.chunk(2)
    return Maps(mean_of_mirrored(both.patches), windows, (plain + mirrored) / 2, both.patch)


def mean_of_mirrored(maps: Tensor) -> Tensor:
    """Takes the mean of maps and of those of the mirror images behind them, [2 * B, rows, columns] -> half as many."""
    plain, mirrored = maps.chunk(2)
    return (plain + mirrored.flip(2)) / 2


def placed(maps: Maps, number: int, preprocess: Preprocess, size: tuple[int, int], model: nn.Module) -> dict[str, Any]:
    """Returns the fields of an Explanation that say where the values of an image of a batch lie in its photograph."""
    box = preprocess.box(size)
    scale = (box.bottom - box.top) / preprocess.side[0], (box.right - box.left) / preprocess.side[1]
    fields: dict[str, Any] = {"patches": maps.patches[number].float().cpu().numpy(), "box": box, "size": size}
    fields["patch"] = (scale[0] * maps.patch, scale[1] * maps.patch)
    if maps.windows is not None and isinstance(model, SuperTokenTransformer):
        windows, side = maps.windows[number].float().cpu(), model.architecture.stride * model.architecture.window
        fields["windows"] = (windows / windows.abs().sum().clamp(min=1e-12)).numpy()
        fields["window"] = (scale[0] * side, scale[1] * side)
    return fields


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


def hats(length: int, first: float, last: float, patch: float, count: int) -> Tensor:
    """Returns the weight of each of `count` patches at each of `length` pixels, [length, count].

    Args:
        length: Pixels of a photograph along one side.
        first: Where the first patch begins, in pixels.
        last: Where the network's view ends; pixels outside have no weight.
        patch: Side of a patch in pixels of the photograph.
        count: Number of patches.
    """
    place = torch.arange(length) + 0.5
    centre = ((place - first) / patch - 0.5).clamp(0, count - 1)
    weights = (1 - (centre[:, None] - torch.arange(count)).abs()).clamp(min=0)
    return weights * ((place >= first) & (place <= last))[:, None]


Method = Callable[[Any, Tensor, Tensor], Maps]
METHODS: dict[str, Method] = {**SUPER_TOKEN_METHODS, "gradcam": grad_cam}
"""The methods by name; the first one is the default: docs/explanations.md says what each is worth."""
