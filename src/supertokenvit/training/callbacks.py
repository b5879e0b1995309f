"""What a caller can hear of a training: four events, each told to plain functions. TensorBoard and MLflow are two."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

from ..run_folder import RunFolder
from .recipe import Recipe, RecipeError


@dataclass(frozen=True)
class Event:
    """Something that happened in a training."""

    kind: Literal["train_start", "evaluation", "checkpoint", "train_end"]
    """Before the first step; after an evaluation; after a checkpoint was written; after the model was saved."""
    folder: RunFolder
    """The run folder."""
    recipe: Recipe
    """Everything that decides the run, with nothing left open."""
    step: int
    """Steps made so far."""
    figures: dict[str, float] = field(default_factory=dict)
    """Evaluation: the row of metrics.csv. Train end: the score of each split."""


Callback = Callable[[Event], None]


def tensorboard() -> Callback:
    """Makes a callback that writes the figures of each evaluation as TensorBoard events into the run folder.

    Raises:
        RecipeError: TensorBoard is not installed.
    """
    need("tensorboard", "tensorboard")

    def write(event: Event) -> None:
        if event.kind == "evaluation":
            from torch.utils.tensorboard import SummaryWriter

            with SummaryWriter(str(event.folder.events)) as writer:
                for name, value in event.figures.items():
                    writer.add_scalar(name, value, event.step)

    return write


def mlflow() -> Callback:
    """Makes a callback that logs recipe and figures as one MLflow run, to wherever MLflow's own settings say.

    Raises:
        RecipeError: MLflow is not installed.
    """
    need("mlflow", "mlflow")
    import mlflow as library

    client, run_id = library.MlflowClient(), ""

    def write(event: Event) -> None:
        nonlocal run_id
        if event.kind == "train_start":
            name = "supertokenvit"
            found = client.get_experiment_by_name(name)
            experiment = client.create_experiment(name) if found is None else found.experiment_id
            run_id = client.create_run(experiment, run_name=event.folder.path.name).info.run_id
            for key, value in asdict(event.recipe).items():
                client.log_param(run_id, key, value)
        for key, value in event.figures.items():
            client.log_metric(run_id, key, value, step=event.step)
        if event.kind == "train_end":
            client.set_terminated(run_id)

    return write


def need(package: str, extra: str) -> None:
    """Says which extra to install if a package is not there.

    Raises:
        RecipeError: It is not.
    """
    if find_spec(package) is None:
        raise RecipeError(f"{package} is not installed: pip install 'supertokenvit[{extra}]'")


def all_callbacks(recipe: Recipe, given: Sequence[Callback]) -> list[Callback]:
    """Returns the caller's callbacks and those that the recipe asks for.

    Raises:
        RecipeError: One of them is not installed.
    """
    asked: list[Any] = [tensorboard] if recipe.tensorboard else []
    asked += [mlflow] if recipe.mlflow else []
    return [*given, *(make() for make in asked)]
