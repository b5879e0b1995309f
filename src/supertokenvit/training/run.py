"""Beginning a training, and going on with one: what the command and the Python API call."""

import difflib
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import yaml
from rich.console import Console

from ..data.splits import Splits, fingerprint, open_splits
from ..machine import environment
from ..run_folder import RunFolder, new_run_folder, write_json
from .assembly import begin, reopen
from .callbacks import Callback
from .checkpoint import read_checkpoint
from .loop import Trainer
from .processes import Processes
from .recipe import Recipe, RecipeError


def train(
    data: str | os.PathLike, *, callbacks: Sequence[Callback] = (), console: Console | None = None, **options: Any
) -> RunFolder:
    """Trains a model on labelled images and returns the run folder.

    Args:
        data: Folder of class folders, with or without train, val and test above them, or anything else that
            `supertokenvit train --data` takes.
        callbacks: Functions that are told of the run's events (see training.callbacks.Event).
        console: Where lines for the user go; Console(quiet=True) for nowhere.
        **options: Fields of Recipe; what is not set is chosen from the data and the machine.

    Raises:
        UserError: What is wrong with the options, the data or the machine, in one line (see train_recipe).

    Example:
        >>> import supertokenvit
        >>> run = supertokenvit.train("digits", epochs=1, out="runs/example")  # doctest: +SKIP
        >>> supertokenvit.load(run)("photo.jpg")[0].labels  # doctest: +SKIP
        ['3', '8', '5', '9', '2']
    """
    unknown = sorted(set(options) - {f.name for f in fields(Recipe)})
    if unknown:
        near = difflib.get_close_matches(unknown[0], [f.name for f in fields(Recipe)], n=1)
        raise RecipeError(f"no option {unknown[0]}{f'; did you mean {near[0]}?' if near else ''}")
    return train_recipe(Recipe(data=os.fspath(data), **options), callbacks=callbacks, console=console)


def train_recipe(recipe: Recipe, *, callbacks: Sequence[Callback] = (), console: Console | None = None) -> RunFolder:
    """Trains as the recipe says and returns the run folder.

    Args:
        recipe: What is None in it is chosen from the data and the machine.
        callbacks: Functions that are told of the run's events (see callbacks.Event).
        console: Where lines for the user go; Console(quiet=True) for nowhere.

    Raises:
        RecipeError: Options that do not fit each other or the data.
        DataError: The data cannot be trained on.
        TrainingStopped: Interrupted, or the loss is no longer finite.
        CheckpointError: The disk is full.
    """
    processes = Processes(recipe)
    splits = open_together(recipe, processes)
    folder = processes.from_main(lambda: new_run_folder(recipe.out, recipe.data))
    try:
        run = begin(recipe, splits, folder, console or Console(), processes, callbacks)
        trainer = Trainer(run)
    except BaseException:
        if processes.is_main:
            folder.remove_if_only_a_log()
        raise
    if processes.is_main:
        folder.recipe.write_text(yaml.safe_dump(asdict(run.recipe), sort_keys=False), encoding="utf-8")
        write_json(folder.environment, environment() | {"processes": processes.count})
    return trainer.fit()


def resume(
    folder: str | os.PathLike | RunFolder,
    *,
    callbacks: Sequence[Callback] = (),
    console: Console | None = None,
    **changes: Any,
) -> RunFolder:
    """Goes on with an interrupted run from its last checkpoint, to the same end as if it had not been interrupted.

    Args:
        folder: The run folder.
        callbacks: As in train.
        console: As in train.
        **changes: Recipe fields that change no result: workers, cache, device, tensorboard, mlflow, skip_damaged.

    Raises:
        RecipeError: No run there, or not its data.
        CheckpointError: No checkpoint, or a damaged one.
        Others: As train.
    """
    folder = RunFolder(folder)
    if not folder.recipe.exists():
        raise RecipeError(f"{folder}: no run to resume there (recipe.yaml is missing)")
    state = read_checkpoint(folder.last)
    recipe = Recipe(**(yaml.safe_load(folder.recipe.read_text(encoding="utf-8")) | changes))
    processes = Processes(recipe)
    splits = open_together(recipe, processes)
    if fingerprint(splits.train) != state["fingerprint"]:
        raise RecipeError(f"{recipe.data}: not the data that this run began with (files or labels differ)")
    run = reopen(recipe, splits, folder, console or Console(), processes, callbacks, steps=state["steps"])
    return Trainer(run, state).fit()


def open_together(recipe: Recipe, processes: Processes) -> Splits:
    """Opens the data in every process, in one of each machine first, as it may have to download."""
    with processes.accelerator.local_main_process_first():
        return open_splits(recipe.data, val_fraction=recipe.val_fraction, seed=recipe.seed)
