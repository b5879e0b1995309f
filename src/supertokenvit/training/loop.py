"""The training loop. Everything random is a function of seed, epoch, sample and step: a resumed run is the same run."""

import math
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from ..data.augmentation import seed_step
from ..data.loading import Preprocess, StepBatches, default_workers, eval_batches, train_loader
from ..data.sources import Part, Source, fingerprint, open_splits
from ..errors import UserError
from ..evaluation import Evaluation, EvaluationError, evaluate, refusal
from ..machine import autocast, environment
from ..prediction import Predictor
from ..run_folder import TrainedModel, new_run_folder, save_model, write_json
from .checkpoint import Standing, read_checkpoint, write_checkpoint
from .defaults import steps_until
from .optimizer import learning_rate, set_learning_rate
from .processes import LostProcess, Processes
from .progress import Interruption, TrainingBar
from .recipe import Recipe, RecipeError
from .report import append_metrics, cut_metrics, draw_samples, write_events, write_report
from .setup import Run, prepare
from .starting_model import build

DROPOUT = 1 << 30  # keeps its random numbers apart from those of places in a batch


class TrainingStopped(UserError):
    """The run ended before its last step; one line that says why and how to go on."""


def train(recipe: Recipe, console: Console | None = None) -> Path:
    """Trains as the recipe says and returns the run folder.

    Raises:
        RecipeError: Options that do not fit each other or the data.
        DataError: The data cannot be trained on.
        TrainingStopped: Interrupted, or the loss is no longer finite.
        CheckpointError: The disk is full.
    """
    processes = Processes(recipe)
    with processes.accelerator.local_main_process_first():  # it may have to download
        splits = open_splits(recipe.data, val_fraction=recipe.val_fraction, seed=recipe.seed)
    folder = processes.from_main(lambda: new_run_folder(recipe.out, recipe.data))
    try:
        run = prepare(recipe, splits, folder, console or Console(), processes)
        trainer = Trainer(run)
    except BaseException:
        if processes.is_main and not any(p.name != "log.txt" for p in folder.iterdir()):
            (folder / "log.txt").unlink(missing_ok=True)
            folder.rmdir()
        raise
    if processes.is_main:
        (folder / "recipe.yaml").write_text(yaml.safe_dump(asdict(run.recipe), sort_keys=False))
        write_json(folder / "environment.json", environment() | {"processes": processes.count})
    return trainer.fit()


def resume(folder: str | Path, console: Console | None = None, **changes: Any) -> Path:
    """Goes on with an interrupted run from its last checkpoint, to the same end as if it had not been interrupted.

    Args:
        folder: The run folder.
        console: To speak on.
        **changes: Recipe fields that change no result: workers, cache, device, tensorboard, skip_damaged.

    Raises:
        RecipeError: No run there, or not its data.
        CheckpointError: No checkpoint, or a damaged one.
        Others: As train.
    """
    folder = Path(folder)
    if not (folder / "recipe.yaml").exists():
        raise RecipeError(f"{folder}: no run to resume there (recipe.yaml is missing)")
    state = read_checkpoint(folder / "checkpoints" / "last.pt")
    recipe = Recipe(**(yaml.safe_load((folder / "recipe.yaml").read_text()) | changes))
    processes = Processes(recipe)
    with processes.accelerator.local_main_process_first():  # it may have to download
        splits = open_splits(recipe.data, val_fraction=recipe.val_fraction, seed=recipe.seed)
    if fingerprint(splits.train) != state["fingerprint"]:
        raise RecipeError(f"{recipe.data}: not the data that this run began with (files or labels differ)")
    run = prepare(recipe, splits, folder, console or Console(), processes, steps=state["steps"])
    return Trainer(run, state).fit()


class Trainer:
    """The loop over the parts of a run.

    Args:
        run: From setup.prepare.
        state: A checkpoint to go on from.
    """

    def __init__(self, run: Run, state: dict[str, Any] | None = None) -> None:
        self.run, self.recipe, self.processes = run, run.recipe, run.processes
        if state is not None:
            run.model.load_state_dict(state["model"])
        ema = run.recipe.ema
        self.ema = ModelEmaV3(run.model, decay=ema, use_warmup=True, warmup_power=0.75) if ema is not None else None
        self.model, self.optimizer = self.processes.spread(run.model, run.recipe)
        self.workers = default_workers() if run.recipe.workers is None else run.recipe.workers
        self.place = self.processes.part(run.batch_size)
        self.fingerprint = fingerprint(run.splits.train)
        self.at = Standing()
        self.measure = "mAP" if run.splits.train.multi_label else "accuracy"
        self.named = {str(error) for error in run.images.damaged}
        self.interruption = Interruption()
        self.val_batches = self.decode_validation()
        if state is not None:
            self.load_state(state)

    def decode_validation(self) -> list | None:
        """This process's validation images before the first step, as a damaged one would end the run after an epoch.

        They are kept if the training images are in memory.
        """
        run, in_memory = self.run, self.run.images.images is not None
        if self.recipe.skip_damaged and not in_memory:
            return None
        part = Part(run.val, self.processes.rank, self.processes.count)
        kept, damaged = [], []
        for batch in eval_batches(part, Preprocess(run.data_config), 256, 0 if in_memory else self.workers):
            damaged += [str(error) for error in batch[2]]
            kept += [batch] if in_memory else []
        damaged = sum(self.processes.gather(damaged), [])
        if damaged and not self.recipe.skip_damaged:
            raise EvaluationError(refusal(damaged[0]))
        return kept if in_memory else None

    def fit(self) -> Path:
        """Runs from where it stands to the last step; then saves the best model and reports the test set, if any."""
        try:
            with self.processes.watched():
                with self.interruption.watched():
                    self.work()
                self.finish()
            self.processes.leave_at_exit()
        except LostProcess as error:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher's, which would come before the message
            raise TrainingStopped(
                f"{error}, at step {self.at.step:,}: go on from the last checkpoint with --resume {self.run.folder}"
            ) from error
        return self.run.folder

    def work(self) -> None:
        """The steps, with evaluations and checkpoints."""
        run, at = self.run, self.at
        eval_every = max(1, round(self.recipe.eval_epochs * run.per_epoch))
        # a time budget is checked, and planned anew, ten times at least
        save_every = 60 * min(self.recipe.checkpoint_minutes, (self.recipe.minutes or math.inf) / 10)
        weights = run.sample_weights
        batches = StepBatches(
            len(run.images), run.batch_size, seed=self.recipe.seed, first=at.step, weights=weights, part=self.place
        )
        loader = iter(train_loader(run.images, batches, self.workers))
        saved = started = time.monotonic()
        before = at.seconds
        self.train_mode()
        enough = self.out_of_patience()
        with TrainingBar(run.console, run.steps, at.step, hidden=not self.processes.is_main) as bar:
            while at.step < run.steps and not enough:
                waiting = time.monotonic()
                images, targets, indices, damaged = next(loader)
                at.waited += time.monotonic() - waiting
                self.step(images, targets, indices, damaged)
                at.step += 1
                at.seconds = before + time.monotonic() - started
                bar.update(at.step, run.steps, self.note())
                due = at.step % eval_every == 0 or at.step == run.steps
                evaluating = time.monotonic()
                enough = due and self.evaluate_and_save()
                at.evaluating += time.monotonic() - evaluating
                late = self.processes.is_main and time.monotonic() - saved > save_every
                save, stop = self.processes.total(late, self.interruption.number is not None)
                if due or save or stop:
                    at.seconds = self.processes.from_main(lambda: before + time.monotonic() - started)
                    if self.recipe.minutes is not None and at.step < run.steps:
                        run.steps = steps_until(self.recipe.minutes, at.step, at.seconds)
                    self.save_state("last")
                    saved = time.monotonic()
                if stop:
                    name = self.interruption.name
                    raise TrainingStopped(f"{name} at step {at.step:,}; go on with --resume {run.folder}")

    def step(self, images: Tensor, targets: Tensor, indices: list[int], damaged: list[str]) -> None:
        """One update of the weights."""
        run, at, accumulate = self.run, self.at, self.recipe.accumulate
        lr = learning_rate(at.step, run.steps, self.recipe)
        set_learning_rate(self.optimizer, lr)
        if len(images) < accumulate:
            raise TrainingStopped(
                f"step {at.step:,}: only {len(images)} images of a batch can be decoded: {damaged[0]}"
            )
        waiting = time.monotonic()
        inputs, soft = run.augment(images, targets, self.recipe.seed, at.step + 1, self.place.start)
        at.waited += time.monotonic() - waiting
        if at.step == 0 and self.processes.is_main:
            draw_samples(run.folder / "samples.png", inputs[:24].contiguous(), targets[:24], run.classes)
        inputs, soft = inputs.to(run.device), soft.to(run.device)
        seed_step(self.recipe.seed, at.step + 1, DROPOUT + self.processes.rank)
        count, weight, bad = self.processes.total(len(inputs), run.objective.weight(soft), len(damaged))
        if bad:
            self.name_damaged(sum(self.processes.gather(damaged), []))
        parts = zip(inputs.tensor_split(accumulate), soft.tensor_split(accumulate), strict=True)
        for number, (x, y) in enumerate(parts, 1):
            with self.processes.gradients(self.model, last=number == accumulate):
                with autocast(self.recipe.precision, run.device):
                    logits = self.model(x).float()
                loss = run.objective.loss(logits, y) / weight
                if run.teacher is not None:
                    loss = torch.lerp(loss, run.teacher.loss(x, logits) / count, self.recipe.teacher_share)
                value, hits = self.processes.total(loss.item(), run.objective.hits(logits, y))
                if not math.isfinite(value):
                    self.stop_not_finite(lr, indices)
                # gradients are averaged over the processes, and the sum is wanted
                self.processes.accelerator.backward(loss * self.processes.count)
            at.loss += value * count
            at.correct += hits
        at.seen += int(count)
        if self.recipe.clip_grad is not None:
            self.processes.accelerator.clip_grad_norm_(run.model.parameters(), self.recipe.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(run.model, step=at.step)

    def stop_not_finite(self, lr: float, indices: list[int]) -> None:
        """Ends the run, naming step, learning rate and the batch's files."""
        files = [self.run.images.source.name(i) for i in sum(self.processes.gather(indices), [])]
        if self.processes.is_main:
            (self.run.folder / "not_finite.txt").write_text("\n".join(files) + "\n")
        raise TrainingStopped(
            f"the loss is not finite at step {self.at.step:,} with lr {lr:.2g}; try a lower lr. Files of the batch: "
            f"{', '.join(files[:4])}{f' and {len(files) - 4} more' if len(files) > 4 else ''} (all in not_finite.txt)"
        )

    def evaluate_and_save(self) -> bool:
        """Validates, keeps the best, writes the metrics; says whether patience has run out."""
        run, at = self.run, self.at
        self.share_buffers()
        result = self.evaluate_on(run.val, cached=True)
        # among equals the lower loss: small validation sets count few images
        better = (result.top1, -result.loss) > (at.best, -at.best_loss)
        if better:
            at.best, at.best_loss, at.best_step = result.top1, result.loss, at.step
        at.stale = 0 if better else at.stale + 1
        row = {
            "step": at.step,
            "epoch": at.step / run.per_epoch,
            "lr": learning_rate(at.step - 1, run.steps, self.recipe),
            "train_loss": at.loss / max(1, at.seen),
            "train_accuracy": at.correct / max(1, at.seen),
            "val_loss": result.loss,
            "val_top1": result.top1,
            "images_per_second": at.rate(run.batch_size),
            "data_wait": at.waited / max(at.seconds, 1e-9),
            "minutes": at.seconds / 60,
        }
        if self.processes.is_main:
            append_metrics(run.folder / "metrics.csv", row)
            if self.recipe.tensorboard:
                write_events(run.folder / "events", row)
        at.loss, at.correct, at.seen = 0.0, 0.0, 0
        run.say(
            f"epoch {row['epoch']:.1f} of {run.steps / run.per_epoch:.1f}: loss {row['train_loss']:.3f}, "
            f"validation {self.measure} {100 * result.top1:.2f} %{' (best)' if better else ''}, "
            f"{row['images_per_second']:.0f} images/s, waiting for data {100 * row['data_wait']:.1f} %, "
            f"{row['minutes']:.1f} min"
        )
        self.train_mode()
        if better:
            self.save_state("best")
        return self.out_of_patience()

    def out_of_patience(self) -> bool:
        """Whether there were enough evaluations without a better one."""
        return self.recipe.patience is not None and self.at.stale >= self.recipe.patience

    def evaluate_on(self, source: Source, trained: TrainedModel | None = None, cached: bool = False) -> Evaluation:
        """Figures of a model, by default the present weights (their running mean, if there is one)."""
        predictor = Predictor(trained or self.trained(), self.run.device)
        part = Part(source, self.processes.rank, self.processes.count)
        result = evaluate(
            predictor,
            source,
            batches=self.val_batches if cached else None,
            batch_size=256,
            workers=0 if len(source) < 2000 else self.workers,
            skip_damaged=self.recipe.skip_damaged,
            progress=False,
            part=part,
            gather=self.processes.gather,
        )
        return self.processes.from_main(lambda: result)  # what follows from it must not differ in a last bit

    def trained(self, model: nn.Module | None = None) -> TrainedModel:
        """A model as it will be used, by default with the present weights."""
        run, about = self.run, {"multi_label": self.run.splits.train.multi_label, "tta": self.recipe.tta}
        model = model or (self.ema.module if self.ema is not None else run.model)
        return TrainedModel(model, run.classes, run.data_config, about, run.folder)

    def finish(self) -> None:
        """Saves the best weights as the model, draws the pictures, and measures the test set once."""
        run, at, recipe = self.run, self.at, self.recipe
        kind = "model" if self.ema is None else "ema"
        best = self.processes.from_main(lambda: read_checkpoint(run.folder / "checkpoints" / "best.pt")[kind])
        trained = self.trained(build(recipe, len(run.classes)) if recipe.shard else None)
        trained.model.load_state_dict(best)
        parts = {"validation": self.evaluate_on(run.val, trained, cached=True)}
        self.keep(trained, parts)  # already now: a test image may be damaged
        if run.splits.test is not None:
            parts["test"] = self.evaluate_on(run.splits.test, trained)
            self.keep(trained, parts)
        tested = f", test {self.measure} {100 * parts['test'].top1:.2f} %" if "test" in parts else ""
        run.say(
            f"done in {at.seconds / 60:.1f} min: best validation {self.measure} "
            f"{100 * parts['validation'].top1:.2f} % (step {at.best_step:,}){tested}"
        )
        run.say(f"run folder: {run.folder}")

    def keep(self, trained: TrainedModel, parts: dict[str, Evaluation]) -> None:
        """Writes the model folder and the figures of the parts that have been measured."""
        run, at, recipe = self.run, self.at, self.recipe
        if not self.processes.is_main:
            return
        about = {
            "data": recipe.data,
            "data_fingerprint": self.fingerprint,
            "data_license": recipe.data_license,
            **trained.about,
            "split_rule": run.splits.rule,
            "val_fraction": recipe.val_fraction,
            "seed": recipe.seed,
            "steps": at.best_step,
            **{f"{name}_top1": part.top1 for name, part in parts.items()},
        }
        write_report(run.folder, parts, self.measure)
        save_model(trained.model, run.folder / "model", classes=run.classes, data_config=run.data_config, about=about)

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        self.share_buffers()
        return self.processes.states(self.run.model, self.optimizer) | {
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
            "standing": asdict(self.at),
            "steps": self.run.steps,
            "fingerprint": self.fingerprint,
        }

    def share_buffers(self) -> None:
        """Gives all processes the main one's BatchNorm statistics: those are what is saved."""
        for model in (self.run.model, *([] if self.ema is None else [self.ema.module])):
            self.processes.share_buffers(model)

    def save_state(self, name: str) -> None:
        """Writes checkpoints/NAME.pt."""
        state = self.state()
        self.processes.from_main(lambda: write_checkpoint(self.run.folder / "checkpoints" / f"{name}.pt", state))

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes back to where a checkpoint stood; the model's weights are there already."""
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.processes.load_optimizer(self.run.model, self.optimizer, state["optimizer"])
        self.at = Standing(**state["standing"])
        if self.processes.is_main:
            cut_metrics(self.run.folder / "metrics.csv", self.at.step)
        self.run.say(f"resumed at step {self.at.step:,} of {self.run.steps:,}")

    def train_mode(self) -> None:
        """Training mode, but for what is frozen: BatchNorm there keeps its statistics."""
        self.run.model.train()
        for part in self.run.frozen:
            part.eval()

    def name_damaged(self, damaged: list[str]) -> None:
        """Says once of each damaged image that it is left out."""
        for line in damaged:
            if line not in self.named:
                self.named.add(line)
                self.run.say(f"left out: {line}")

    def note(self) -> str:
        """What stands behind the progress bar."""
        at = self.at
        share = 100 * at.waited / max(at.seconds, 1e-9)
        loss, correct = (value / max(1, at.seen) for value in (at.loss, at.correct))
        hits = f"  acc {100 * correct:.1f} %" if self.measure == "accuracy" else ""
        return f"loss {loss:.3f}{hits}  {at.rate(self.run.batch_size):.0f} img/s  wait {share:.1f} %"
