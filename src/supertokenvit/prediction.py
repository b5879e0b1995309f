"""Images in, answers out: the one path that every use of a trained model takes."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from timm.models import get_pretrained_cfg
from torch import Tensor

from supertokenvit_runtime.decode import Picture, read_picture

from .data.decode import BadImage, printable
from .dense import TASKS
from .engines.graph_file import GraphFile, is_graph
from .engines.torch_engine import TorchNetwork
from .errors import UsageError, UserError
from .machine import best_device, best_precision, cores
from .model_folder import ModelCard, TrainedModel, load_model, read_config, shipped_model
from .preprocessing import WASTE, Whole, alike, normalize, padded, together, views
from .products import convolution_pays
from .run_folder import RunFolder
from .tasks import Labels, Prediction

__all__ = ["Prediction", "Predictor", "load"]
Views = Literal["none", "flip", "shift"]
Resize = Literal["center", "squash", "border", "keep"]
Network = Callable[[Tensor], Tensor]
Sized = tuple[Tensor, tuple[int, int]]
BATCH = 64  # larger ones gain nothing on a CPU, and rows come later
AHEAD = 4  # batches that are decoded before the network asks for them


class PredictionError(UserError):
    """A request that cannot be answered at all."""


class Predictor:
    """A trained model that answers for images.

    Args:
        network: Any callable from normalised images, float32 [N, 3, S, S], to logits [N, K].
        classes: Names in the order of the logits.
        data_config: timm's description of the preprocessing (see model_folder.TrainedModel).
        card: What the training wrote down: the task and the views.
        name: For people.
    """

    def __init__(
        self, network: Network, classes: list[str], data_config: dict[str, Any], card: ModelCard, name: str = "model"
    ) -> None:
        self.network, self.classes, self.data_config, self.card = network, classes, data_config, card
        self.name = name
        self.task: Any = TASKS[card.task](threshold=card.threshold)
        self.preprocess: Any = self.task.preprocess(data_config)

    @classmethod
    def of(
        cls,
        trained: TrainedModel,
        device: str | torch.device | None = "cpu",
        precision: str = "fp32",
        *,
        by_convolution: bool = False,
    ) -> "Predictor":
        """Makes a predictor of a torch model, whose train/eval mode stays as it is.

        Args:
            trained: From model_folder.load_model, or the model of a training that goes on.
            device: Where to compute; None for the best there is.
            precision: "fp32" or "bf16".
            by_convolution: Compute products as convolutions (see products).

        Raises:
            PredictionError: Its classes have no names.
            DeviceError: There is no such device.
        """
        named, there = len(trained.classes), getattr(trained.model, "num_classes", None)
        if named != there:
            raise PredictionError(
                f"{trained.path}: {named} names for {there} classes: write them into label_names of its config.json"
            )
        where = device if isinstance(device, torch.device) else best_device(device)
        network = TorchNetwork(trained.model, where, precision, by_convolution=by_convolution)
        return cls(network, trained.classes, trained.data_config, trained.card, trained.path.name)

    def logits(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Answers for images that are preprocessed: the mean over their views.

        Gradients are kept unless the caller turns them off (torch.inference_mode, torch.no_grad).

        Args:
            images: uint8 [N, 3, S, S], as `preprocess` makes them; S may differ from that of the training. Or N images
                uint8 [3, h, w] of different shapes.

        Returns:
            float32 [N, K] on the CPU.
        """
        if not isinstance(images, Tensor):
            return self._logits_of_shapes(images)
        x = normalize(images, self.data_config["mean"], self.data_config["std"])
        seen = views(x, self.card.tta)
        return sum((weight * self.network(view).float() for weight, view in seen), start=torch.zeros(())).cpu()

    def _logits_of_shapes(self, images: Sequence[Tensor]) -> Tensor:
        """Answers for images uint8 [3, h, w] in batches of similar shapes, or of equal ones if the network takes no
        others."""
        takes_sizes = getattr(self.network, "takes_sizes", False)
        groups = alike([(image.shape[1], image.shape[2]) for image in images], WASTE if takes_sizes else 0.0)
        logits = []
        for group in groups:
            batch = together([images[place] for place in group])
            logits.append(self.logits(batch) if isinstance(batch, Tensor) else self._padded_logits(batch))
        return torch.cat(logits)[torch.tensor(sum(groups, [])).argsort()]

    def _padded_logits(self, images: Sequence[Tensor]) -> Tensor:
        """Answers for images uint8 [3, h, w] in one batch; the views of each are made before it is padded."""
        network: Any = self.network
        mean, std = self.data_config["mean"], self.data_config["std"]
        seen = [views(normalize(image[None], mean, std), self.card.tta) for image in images]
        total = torch.zeros(())
        for several in zip(*seen, strict=True):  # one view of each image
            batch, sizes = padded([view[0] for _, view in several])
            total = total + several[0][0] * network(batch, sizes).float().cpu()
        return total

    def __call__(self, images: Picture | Iterable[Picture], topk: int = 5) -> list[Any]:
        """Answers for one image or several.

        Args:
            images: Each a path, the bytes of a file, a PIL image, or an array: uint8 [H, W], [H, W, 3] or [H, W, 4].
            topk: Classes to name.

        Returns:
            One answer for each image, in order: a Prediction, or what else the task answers (dense.MaskPrediction). One
            that cannot be read has its `error` set.
        """
        one = isinstance(images, (str, os.PathLike, bytes, Image.Image, np.ndarray))
        return list(self.predict([images] if one else images, topk))  # type: ignore[list-item, arg-type]

    def predict(self, images: Iterable[Picture], topk: int = 5, batch_size: int = BATCH) -> Iterator[Any]:
        """Answers one image after the other, as they come: threads decode the next ones while the network computes.

        Args:
            images: As in `__call__`; they may be endless.
            topk: Classes to name.
            batch_size: Images that the network sees at once.
        """
        topk = min(topk, len(self.classes))
        for names, pixels in self._decoded(images, batch_size):
            whole = [(name, *image) for name, image in zip(names, pixels, strict=True) if not isinstance(image, str)]
            if whole:
                with torch.inference_mode():
                    answers = iter(self.task.predictions(self, *map(list, zip(*whole, strict=True)), topk))
            for name, image in zip(names, pixels, strict=True):
                yield self.task.unanswered(name, image) if isinstance(image, str) else next(answers)

    def _decoded(self, images: Iterable[Picture], batch_size: int) -> Iterator[tuple[list[str], list["Sized | str"]]]:
        """Batches of names with preprocessed images, or what is wrong with them, a few batches ahead of the caller."""
        waiting: deque[Future] = deque()
        numbered = enumerate(images)
        with ThreadPoolExecutor(cores()) as pool:
            try:
                while True:
                    while len(waiting) < AHEAD:
                        batch = list(islice(numbered, batch_size))
                        if not batch:
                            break
                        waiting.append(pool.submit(self._look, batch))
                    if not waiting:
                        return
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _look(self, batch: Sequence[tuple[int, Picture]]) -> tuple[list[str], list["Sized | str"]]:
        """Names of pictures, and each as uint8 [3, H, W] with its size as it was, or what is wrong with it."""
        names, pixels = [], list[Sized | str]()
        for number, picture in batch:
            names.append(printable(picture) if isinstance(picture, (str, os.PathLike)) else f"image {number}")
            try:
                image = read_picture(picture, self.preprocess.enough)
                pixels.append((self.preprocess(image), image.size))
            except BadImage as error:
                pixels.append(error.reason)
            except OSError as error:
                pixels.append(error.strerror or str(error))
        return names, pixels


class GraphPredictor(Predictor):
    """An exported file that answers for images; resizing and views may be in the graph.

    Args:
        file: In its engine.
    """

    def __init__(self, file: GraphFile) -> None:
        about = file.about
        super().__init__(self.run, about["classes"], about["preprocessing"], ModelCard(**about["card"]), about["name"])
        self.file, self.sees_photographs = file, about["input"] == "photo"
        if self.sees_photographs:
            self.preprocess = Whole(about["enough"])

    def run(self, images: Tensor) -> Tensor:
        """Returns logits [N, K] for what the graph takes, as the task makes them of its probabilities."""
        return self.task.logits_of(torch.from_numpy(self.file(images.contiguous().numpy())["probabilities"]))

    def logits(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Answers for images uint8 [N, 3, H, W], or N of different shapes, in batches of one shape; see Predictor."""
        if not isinstance(images, Tensor):
            return self._logits_of_shapes(images)
        if self.sees_photographs:
            return self.run(images.permute(0, 2, 3, 1))
        return self.run(normalize(images, self.data_config["mean"], self.data_config["std"]))


def load(
    run: str | os.PathLike | RunFolder | None = None,
    *,
    img_size: int | None = None,
    tta: Views | None = None,
    resize: Resize | None = None,
    threshold: float | None = None,
    device: str | None = None,
    precision: Literal["fp32", "bf16", "auto"] = "fp32",
) -> Predictor:
    """Loads a trained model, ready to answer for images.

    Args:
        run: Run folder, or the model folder in it, or the name of a model that comes with the package, or an exported
            .onnx or .xml file; None for the most accurate of those that come with the package.
        img_size: Side of the images that the network sees, in pixels; that of its training by default.
        tta: Views of an image over which the answer is the mean; those that the training set by default.
        resize: How images get their size: "center" cuts the centre out, "squash" distorts, "border" adds a border,
            "keep" keeps their shape, with nothing cut off (see preprocessing.Preprocess); as trained by default.
        threshold: Detection: score from which on boxes are answered; the one that fitted the validation images by
            default.
        device: cpu, cuda, mps; the best there is by default.
        precision: "bf16" computes with less precision, "auto" does so where this machine gains by it.

    Raises:
        RunFolderError: There is no model that this version can load.
        DeviceError: There is no such device.

    Example:
        >>> import supertokenvit
        >>> predictor = supertokenvit.load("stt_micro.cifar10")
        >>> len(predictor.classes)
        10
    """
    if run is not None and is_graph(run):
        return exported(run, img_size=img_size, tta=tta, resize=resize, threshold=threshold, device=device)
    if tta not in (None, *get_args(Views)):
        raise UsageError(f"tta={tta}: must be none, flip or shift")
    if resize not in (None, *get_args(Resize)):
        raise UsageError(f"resize={resize}: must be center, squash, border or keep")
    trained = load_model(shipped_model() if run is None else run, img_size)
    if tta not in (None, "none") and TASKS[trained.card.task].heads:
        raise UsageError(f"tta={tta}: not for {trained.card.task}, whose answers have places in the image")
    if resize is not None:
        refuse_resize(trained, resize)
        trained = replace(trained, data_config=trained.data_config | {"crop_mode": resize})
    if threshold is not None and not 0 <= threshold <= 1:
        raise UsageError(f"threshold={threshold}: must be from 0 to 1")
    if threshold is not None and trained.card.task != "detection":
        raise UsageError(f"threshold={threshold}: only for detection, not for {trained.card.task}")
    card = trained.card if tta is None else replace(trained.card, tta=tta)
    card = card if threshold is None else replace(card, threshold=threshold)
    where = best_device(device)
    precision = best_precision(where)[0] if precision == "auto" else precision
    by_convolution = where.type == "cpu" and precision == "fp32" and convolution_pays()
    return Predictor.of(replace(trained, card=card), where, precision, by_convolution=by_convolution)


def exported(run: str | os.PathLike, **options: Any) -> GraphPredictor:
    """Reads an exported file, for the CPU.

    Raises:
        UsageError: An option of what the graph has in it already.
        SessionError: The engine cannot read it.
        AboutError: `export` did not write it.
    """
    for name, value in options.items():
        if value is not None and (name, value) != ("device", "cpu"):
            raise UsageError(f"{name}={value}: an exported file has that in it; export the model anew")
    return GraphPredictor(GraphFile(run, cores()))


def refuse_resize(trained: TrainedModel, resize: str) -> None:
    """Raises UsageError for a way of resizing that a model cannot take."""
    if not issubclass(TASKS[trained.card.task], Labels):
        raise UsageError(f"resize={resize}: not for {trained.card.task}, which always sees the whole photograph")
    architecture = read_config(trained.path)[1]["architecture"]
    registered = get_pretrained_cfg(architecture)  # config.json does not say it
    if resize == "keep" and registered is not None and registered.fixed_input_size:
        raise UsageError(f"resize=keep: {architecture} takes square images of one size only")
