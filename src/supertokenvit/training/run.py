"""Beginning a training, and going on with one: what the command and the Python API call."""

import contextlib
import difflib
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import yaml
from rich.console import Console

from ..console import user_console
from ..data.masks import Reading
from ..data.splits import Inherited, Splits, TrainedOn, data_found, is_there, open_as_trained, open_splits
from ..machine import environment
from ..model_folder import ModelCard, is_trained, read_config
from ..run_folder import RunFolder, RunFolderError, new_run_folder, write_json, write_text
from .assembly import begin, log, reopen
from .callbacks import Callback
from .checkpoint import read_checkpoint
from .loop import Trainer
from .processes import Processes
from .progress import Interruption
from .recipe import Recipe, RecipeError, check_changes
from .starting_model import is_weights_file

# what the system says when nothing more can be written: full, over the quota, read-only, too large, broken
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)


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
        RunFolderError: The folder is not free, or the disk is full.
        TrainingStopped: Interrupted, or the loss is no longer finite.
        CheckpointError: A checkpoint cannot be written.
    """
    interruption = Interruption()
    with interruption.watched():
        processes = Processes(recipe)
        inherited = None if recipe.init is None else trained_before(recipe.init)
        splits = open_together(recipe, processes, inherited)
        folder = processes.from_main(lambda: new_run_folder(recipe.out, recipe.data))
        with owned(folder, processes):
            return begin_in(folder, recipe, splits, processes, console or user_console(), callbacks, interruption)


def begin_in(
    folder: RunFolder,
    recipe: Recipe,
    splits: Splits,
    processes: Processes,
    console: Console,
    callbacks: Sequence[Callback],
    interruption: Interruption,
    *,
    again: bool = False,
) -> RunFolder:
    """Trains into a folder that is this run's own.

    Of a new run that fails before its first step nothing is left. One that a signal ends can be begun again by
    `resume`, and then its recipe stays there whatever happens.
    """
    if processes.is_main:
        folder.clear(folder.recipe) if again else folder.must_be_free()
    try:
        if processes.is_main:
            write_text(folder.recipe, yaml.safe_dump(asdict(recipe), sort_keys=False))
            write_json(folder.environment, {"working_directory": os.getcwd()})
        interruption.advice = f"no step was saved yet; begin again with --resume {folder}"
        run = begin(recipe, splits, folder, console, processes, callbacks)
        trainer = Trainer(run, interruption=interruption)
        if processes.is_main:
            write_text(folder.recipe, yaml.safe_dump(asdict(run.recipe), sort_keys=False))
            about = {"processes": processes.count, "working_directory": os.getcwd()}
            write_json(folder.environment, environment() | about)
            if not splits.val_is_own:
                folder.keep_for_validation([run.val.key(i) for i in range(len(run.val))])
    except Exception:
        if processes.is_main and not again:
            folder.remove()  # nothing else was in it
        raise
    interruption.advice = f"go on with --resume {folder}"  # from the last checkpoint, or else from the beginning
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
        **changes: Recipe fields that change no result: workers, cache, device, tensorboard, mlflow, skip_damaged; and
            data, for the same images at another place.

    Raises:
        RecipeError: No run there, not its data, or a change of something else.
        RunFolderError: Another training is in the folder, or the disk is full.
        CheckpointError: A damaged checkpoint.
        Others: As train.
    """
    check_changes(changes)
    folder, console = RunFolder(folder), console or user_console()
    recipe = replace(read_recipe(folder), **changes)
    recipe = replace(recipe, data=changes.get("data") or data_found(recipe.data, folder.working_directory()))
    if not is_there(recipe.data):
        raise RecipeError(f"{recipe.data}: not there; if the images were moved, say where they are with --data")
    interruption = Interruption()
    interruption.advice = f"go on with --resume {folder}"
    with interruption.watched():
        processes = Processes(recipe)
        with owned(folder, processes):
            if folder.checkpoint is None:
                log(console, folder, "no checkpoint was written yet: the run begins again")
                inherited = None if recipe.init is None else trained_before(recipe.init)
                splits = open_together(recipe, processes, inherited)
                return begin_in(folder, recipe, splits, processes, console, callbacks, interruption, again=True)
            if processes.is_main:
                folder.remove_temporary()
            state = read_checkpoint(folder.checkpoint)
            with processes.accelerator.local_main_process_first():
                kept = folder.kept_for_validation()
                memory = TrainedOn(state["fingerprint"], recipe.val_fraction, recipe.seed, kept)
                found = open_as_trained(recipe.data, memory, reading_of(recipe))
            if found is None:
                raise RecipeError(f"{recipe.data}: not the data that this run began with (files or labels differ)")
            run = reopen(recipe, found, folder, console, processes, callbacks, steps=state["steps"])
            return Trainer(run, state, interruption).fit()


def read_recipe(folder: RunFolder) -> Recipe:
    """Reads the recipe of a run.

    Raises:
        RecipeError: There is none, or it is damaged.
    """
    if not folder.recipe.exists():
        again = f"; begin it again with --out {folder}" if folder.path.is_dir() and folder.holds_a_start_only else ""
        raise RecipeError(f"{folder}: no run to resume there (recipe.yaml is missing){again}")
    try:
        content = yaml.safe_load(folder.recipe.read_text(encoding="utf-8"))
        return Recipe(**content)
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        raise RecipeError(f"{folder.recipe}: damaged, or of another version ({str(error).splitlines()[0]})") from error


def trained_before(init: str) -> Inherited | None:
    """Returns what is known of the images that a start was trained on; nothing of timm's models and files."""
    if is_weights_file(init) or not is_trained(init):
        return None
    path, content = read_config(init)
    card, kept = ModelCard.read(content), RunFolder(path.parent).kept_for_validation()
    if card.data_fingerprint is None:
        return None
    classes = content.get("label_names") or content["pretrained_cfg"].get("label_names") or []
    return Inherited(init, classes, TrainedOn(card.data_fingerprint, card.val_fraction, card.seed, kept))


@contextlib.contextmanager
def owned(folder: RunFolder, processes: Processes) -> Iterator[None]:
    """Keeps every other training out of the folder, and says in one line what cannot be written to it.

    Raises:
        RunFolderError: Another training is in it, or the disk is full.
    """
    with folder.owned() if processes.is_main else contextlib.nullcontext():
        try:
            yield
        except OSError as error:
            if error.errno not in FULL:
                raise
            again = f"go on with --resume {folder}" if folder.checkpoint else "begin again"
            reason = os.strerror(error.errno) if error.errno != errno.EIO else error.strerror
            raise RunFolderError(f"{folder}: cannot be written to ({reason}); make room and {again}") from error


def open_together(recipe: Recipe, processes: Processes, inherited: Inherited | None = None) -> Splits:
    """Opens the data in every process, in one of each machine first, as it may have to download."""
    with processes.accelerator.local_main_process_first():
        return open_splits(
            recipe.data,
            val_fraction=recipe.val_fraction,
            seed=recipe.seed,
            inherited=inherited,
            reading=reading_of(recipe),
        )


def reading_of(recipe: Recipe) -> Reading:
    """Returns how the recipe wants its data to be read."""
    return Reading(recipe.task, None if recipe.classes is None else tuple(recipe.classes), recipe.ignore)
