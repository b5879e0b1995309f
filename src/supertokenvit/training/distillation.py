"""Learning from a trained model's answers as well as from labels."""

from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.data import resolve_data_config
from torch import Tensor, nn

from ..model_folder import is_trained, load_model
from .recipe import Recipe, RecipeError
from .starting_model import is_weights_file


class Teacher:
    """A trained model that says of each training image, as the student sees it, how likely each class is.

    The form is that of Hinton et al., arXiv 1503.02531, section 2.

    Args:
        recipe: Names it, and the temperature.
        classes: Names in the order of the student's logits.
        data_config: The student's preprocessing.
        device: Where to compute.

    Raises:
        RecipeError: There is no such model, or it knows other classes.
    """

    def __init__(self, recipe: Recipe, classes: list[str], data_config: dict[str, Any], device: torch.device) -> None:
        assert recipe.teacher is not None
        self.temperature = recipe.temperature
        self.model, known, config = load_teacher(recipe.teacher)
        if known is not None and set(classes) - set(known):
            unknown = sorted(set(classes) - set(known))[0]
            raise RecipeError(f"teacher={recipe.teacher}: does not know the class {unknown!r} of the training images")
        if known is None and self.model.num_classes != len(classes):
            answers = self.model.num_classes
            raise RecipeError(
                f"teacher={recipe.teacher}: answers for {answers} classes, the images have {len(classes)}"
            )
        self.order = None if known is None else torch.tensor([known.index(name) for name in classes], device=device)
        self.model.to(device).eval().requires_grad_(False)
        self.size = list(config["input_size"][1:])

        def colours(values: Any) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]

        # from the student's normalisation to the teacher's, in one step
        self.scale = colours(data_config["std"]) / colours(config["std"])
        self.shift = (colours(data_config["mean"]) - colours(config["mean"])) / colours(config["std"])

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Normalised for the student [N, 3, S, S] -> [N, K] in the order of the student's classes."""
        images = images * self.scale + self.shift
        if list(images.shape[2:]) != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
        answers = self.model(images)
        return answers if self.order is None else answers[:, self.order]

    def loss(self, images: Tensor, logits: Tensor) -> Tensor:
        """Kullback-Leibler divergence of the student's logits [N, K], softened, times temperature squared; summed."""
        T = self.temperature
        wanted = F.log_softmax(self.logits(images).float() / T, 1)
        return T * T * F.kl_div(F.log_softmax(logits.float() / T, 1), wanted, reduction="sum", log_target=True)


def load_teacher(name: str) -> tuple[nn.Module, list[str] | None, dict[str, Any]]:
    """Model, its class names if it has any, and its preprocessing: of a run folder, or timm's by name."""
    if is_weights_file(name):
        raise RecipeError(f"teacher={name}: a file of weights needs the config.json of its model beside it")
    if is_trained(name):
        trained = load_model(name)
        if trained.card.task != "classification":
            raise RecipeError(f"teacher={name}: was trained for several labels")
        return trained.model, trained.classes or None, trained.data_config
    try:
        model = timm.create_model(name, pretrained=True)
    except (RuntimeError, ValueError, OSError) as error:
        raise RecipeError(f"teacher={name}: no run folder, and timm says: {str(error).splitlines()[0]}") from error
    return model, None, resolve_data_config({}, model=model)
