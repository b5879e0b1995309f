"""The training loop. Everything random is a function of seed, epoch, sample and step: a resumed run is the same run."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from timm.utils import ModelEmaV3
from torch import Tensor

from ..data.augmentation import seed_step
from ..data.loading import StepBatches, default_workers, eval_batches, train_loader
from ..data.sources import Source, fingerprint, open_splits
from ..evaluation import Evaluation, evaluate
from ..prediction import Predictor
from ..run_folder import TrainedModel, environment, new_run_folder, save_model, write_json
from .checkpoint import read_checkpoint, write_checkpoint
from .defaults import steps_until, use_bf16
from .optimizer import learning_rate, make_optimizer, set_learning_rate
from .recipe import Recipe, RecipeError
from .report import append_metrics, cut_metrics, draw_confusion, draw_curves, draw_samples, read_metrics, write_events
from .setup import Run, prepare


class TrainingStopped(Exception):
    """The run ended before its last step; one line that says why and how to go on."""


@dataclass
class Standing:
    """Where a run stands: what a checkpoint holds besides weights and optimiser."""

    step: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    best: float = -math.inf
    best_loss: float = math.inf
    best_step: int = 0
    stale: int = 0
    loss: float = 0.0
    correct: float = 0.0
    seen: int = 0


def train(recipe: Recipe, console: Console | None = None) -> Path:
    """Trains as the recipe says and returns the run folder.

    Raises:
        RecipeError: Options that do not fit each other or the data.
        DataError: The data cannot be trained on.
        TrainingStopped: Interrupted, or the loss is no longer finite.
        CheckpointError: The disk is full.
    """
    console = console or Console()
    splits = open_splits(recipe.data, val_fraction=recipe.val_fraction, seed=recipe.seed)
    folder = new_run_folder(recipe.out, recipe.data)
    try:
        run = prepare(recipe, splits, folder, console)
    except BaseException:
        if not any(p.name != "log.txt" for p in folder.iterdir()):
            (folder / "log.txt").unlink(missing_ok=True)
            folder.rmdir()
        raise
    (folder / "recipe.yaml").write_text(yaml.safe_dump(asdict(run.recipe), sort_keys=False))
    write_json(folder / "environment.json", environment())
    return Trainer(run).fit()


def resume(folder: str | Path, console: Console | None = None, **changes: Any) -> Path:
    """Goes on with an interrupted run from its last checkpoint, to the same end as if it had not been interrupted.

    Args:
        folder: The run folder.
        console: To speak on.
        **changes: Recipe fields that change no result: workers, cache, device, tensorboard.
    """
    folder = Path(folder)
    if not (folder / "recipe.yaml").exists():
        raise RecipeError(f"{folder}: no run to resume there (recipe.yaml is missing)")
    state = read_checkpoint(folder / "checkpoints" / "last.pt")
    recipe = Recipe(**(yaml.safe_load((folder / "recipe.yaml").read_text()) | changes))
    splits = open_splits(recipe.data, val_fraction=recipe.val_fraction, seed=recipe.seed)
    if fingerprint(splits.train) != state["fingerprint"]:
        raise RecipeError(f"{recipe.data}: not the data that this run began with (files or labels differ)")
    trainer = Trainer(prepare(recipe, splits, folder, console or Console(), steps=state["steps"]))
    trainer.load_state(state)
    return trainer.fit()


class Trainer:
    """The loop over the parts of a run.

    Args:
        run: From setup.prepare.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.recipe = run, run.recipe
        AcceleratorState._reset_state(reset_partial_state=True)  # another run in this process may have set it
        bf16 = use_bf16(run.recipe, run.device)
        self.accelerator = Accelerator(cpu=run.device.type == "cpu", mixed_precision="bf16" if bf16 else "no")
        if self.accelerator.num_processes > 1:
            raise RecipeError("training on several processes is not there yet: start one")
        optimizer = make_optimizer(run.model, run.recipe, run.device)
        self.model, self.optimizer = self.accelerator.prepare(run.model, optimizer)
        ema = run.recipe.ema
        self.ema = ModelEmaV3(run.model, decay=ema, use_warmup=True) if ema is not None else None
        self.workers = default_workers() if run.recipe.workers is None else run.recipe.workers
        self.fingerprint = fingerprint(run.splits.train)
        self.at = Standing()
        self.named: set[str] = set()
        self.signal: int | None = None
        self.val_batches: list | None = None

    def fit(self) -> Path:
        """Runs from where it stands to the last step; then saves the best model and reports the test set, if any."""
        run, at = self.run, self.at
        eval_every = max(1, round(self.recipe.eval_epochs * run.per_epoch))
        # a time budget is checked, and planned anew, ten times at least
        save_every = 60 * min(self.recipe.checkpoint_minutes, (self.recipe.minutes or math.inf) / 10)
        batches = StepBatches(
            run.usable, run.batch_size, seed=self.recipe.seed, first=at.step, weights=run.sample_weights
        )
        loader = iter(train_loader(run.images, batches, self.workers))
        saved = started = time.monotonic()
        before = at.seconds
        self.train_mode()
        with self.interruptible(), self.bar() as bar:
            while at.step < run.steps:
                waiting = time.monotonic()
                images, targets, indices, damaged = next(loader)
                at.waited += time.monotonic() - waiting
                self.name_damaged(damaged)
                self.step(images, targets, indices)
                at.step += 1
                at.seconds = before + time.monotonic() - started
                bar.update(self.task, completed=at.step, note=self.note())
                due = at.step % eval_every == 0 or at.step == run.steps
                enough = due and self.evaluate_and_save()
                if due or time.monotonic() - saved > save_every or self.signal:
                    at.seconds = before + time.monotonic() - started
                    if self.recipe.minutes is not None and at.step < run.steps:
                        run.steps = steps_until(self.recipe.minutes, at.step, at.seconds)
                        bar.update(self.task, total=run.steps)
                    self.save_state("last")
                    saved = time.monotonic()
                if self.signal:
                    name = signal.Signals(self.signal).name
                    raise TrainingStopped(f"{name} at step {at.step:,}; go on with --resume {run.folder}")
                if enough:
                    break
        self.finish()
        return run.folder

    def step(self, images: Tensor, targets: Tensor, indices: list[int]) -> None:
        """One update of the weights."""
        run, at = self.run, self.at
        seed_step(self.recipe.seed, at.step + 1)
        lr = learning_rate(at.step, run.steps, self.recipe)
        set_learning_rate(self.optimizer, lr)
        inputs, soft = run.augment(images, targets)
        if at.step == 0:
            titles = [run.classes[int(t)] if t.ndim == 0 else "+".join(self.names(t)) for t in targets[:24]]
            draw_samples(run.folder / "samples.png", inputs[:24].contiguous(), titles)
        inputs, soft = inputs.to(run.device), soft.to(run.device)
        for x, y in zip(inputs.chunk(self.recipe.accumulate), soft.chunk(self.recipe.accumulate), strict=True):
            logits = self.model(x)
            loss = self.loss(logits, y) * (len(x) / len(inputs))
            value = loss.item()
            if not math.isfinite(value):
                self.stop_not_finite(lr, indices)
            self.accelerator.backward(loss)
            at.loss += value * len(inputs)
            at.correct += self.hits(logits, y)
        at.seen += len(inputs)
        if self.recipe.clip_grad is not None:
            self.accelerator.clip_grad_norm_(run.model.parameters(), self.recipe.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(run.model, step=at.step)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, or binary cross-entropy per label for several labels."""
        if self.run.splits.train.multi_label:
            return F.binary_cross_entropy_with_logits(logits, targets.float(), pos_weight=self.run.loss_weights)
        return F.cross_entropy(logits, targets, weight=self.run.loss_weights, label_smoothing=self.recipe.smoothing)

    def hits(self, logits: Tensor, targets: Tensor) -> float:
        """Images whose likeliest class is right; with several labels, the share of right labels summed over images."""
        if self.run.splits.train.multi_label:
            return ((logits > 0) == (targets > 0.5)).float().mean(1).sum().item()
        return (logits.argmax(1) == (targets.argmax(1) if targets.ndim == 2 else targets)).sum().item()

    def stop_not_finite(self, lr: float, indices: list[int]) -> None:
        """Ends the run, naming step, learning rate and the batch's files."""
        files = [self.run.images.source.name(i) for i in indices]
        (self.run.folder / "not_finite.txt").write_text("\n".join(files) + "\n")
        raise TrainingStopped(
            f"the loss is not finite at step {self.at.step:,} with lr {lr:.2g}; try a lower lr. Files of the batch: "
            f"{', '.join(files[:4])}{f' and {len(files) - 4} more' if len(files) > 4 else ''} (all in not_finite.txt)"
        )

    def evaluate_and_save(self) -> bool:
        """Validates, keeps the best, writes the metrics; says whether patience has run out."""
        run, at = self.run, self.at
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
            "images_per_second": at.step * run.batch_size / max(at.seconds, 1e-9),
            "data_wait": self.at.waited / max(at.seconds, 1e-9),
            "minutes": at.seconds / 60,
        }
        append_metrics(run.folder / "metrics.csv", row)
        if self.recipe.tensorboard:
            write_events(run.folder / "events", row)
        at.loss, at.correct, at.seen = 0.0, 0.0, 0
        measure = "mAP" if run.splits.train.multi_label else "accuracy"
        run.say(
            f"epoch {row['epoch']:.1f} of {run.steps / run.per_epoch:.1f}: loss {row['train_loss']:.3f}, "
            f"validation {measure} {100 * result.top1:.2f} %{' (best)' if better else ''}, "
            f"{row['images_per_second']:.0f} images/s, waiting for data {100 * row['data_wait']:.1f} %, "
            f"{row['minutes']:.1f} min"
        )
        self.train_mode()
        if better:
            self.save_state("best")
        return self.recipe.patience is not None and at.stale >= self.recipe.patience

    def evaluate_on(self, source: Source, cached: bool = False) -> Evaluation:
        """Figures of the present weights (their running mean, if there is one)."""
        predictor = Predictor(self.trained(), self.run.device)
        batches = None
        if cached and self.run.images.images is not None:
            if self.val_batches is None:
                self.val_batches = list(eval_batches(source, predictor.preprocess, 256, 0))
            batches = self.val_batches
        return evaluate(
            predictor,
            source,
            batches=batches,
            batch_size=256,
            workers=0 if len(source) < 2000 else self.workers,
            skip_damaged=self.recipe.skip_damaged,
            progress=False,
        )

    def trained(self) -> TrainedModel:
        """The model as it will be used."""
        model = self.ema.module if self.ema is not None else self.run.model
        run = self.run
        return TrainedModel(
            model, run.classes, run.data_config, {"multi_label": run.splits.train.multi_label}, run.folder
        )

    def finish(self) -> None:
        """Saves the best weights as the model, draws the pictures, and measures the test set once."""
        run, at = self.run, self.at
        best = read_checkpoint(run.folder / "checkpoints" / "best.pt")
        trained = self.trained()
        trained.model.load_state_dict(best["ema"] if self.ema is not None else best["model"])
        result = self.evaluate_on(run.val, cached=True)
        figures: dict[str, Any] = {"validation": result.as_dict()}
        if run.splits.test is not None:
            figures["test"] = self.evaluate_on(run.splits.test).as_dict()
        write_json(run.folder / "evaluation.json", figures)
        if result.confusion:
            draw_confusion(run.folder / "confusion.png", result.confusion, run.classes)
        rows = read_metrics(run.folder / "metrics.csv")
        draw_curves(run.folder / "curves.png", rows, "mAP" if run.splits.train.multi_label else "accuracy")
        about = {
            "data": self.recipe.data,
            "data_fingerprint": self.fingerprint,
            "data_license": self.recipe.data_license,
            "multi_label": run.splits.train.multi_label,
            "split_rule": run.splits.rule,
            "val_fraction": self.recipe.val_fraction,
            "seed": self.recipe.seed,
            "steps": at.best_step,
            **{f"{name}_top1": part["top1"] for name, part in figures.items()},
        }
        save_model(trained.model, run.folder / "model", classes=run.classes, data_config=run.data_config, about=about)
        tested = f", test accuracy {100 * figures['test']['top1']:.2f} %" if "test" in figures else ""
        run.say(
            f"done in {at.seconds / 60:.1f} min: best validation accuracy {100 * result.top1:.2f} % "
            f"(step {at.best_step:,}){tested}"
        )
        run.say(f"run folder: {run.folder}")

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        return {
            "model": self.run.model.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "standing": asdict(self.at),
            "steps": self.run.steps,
            "fingerprint": self.fingerprint,
        }

    def save_state(self, name: str) -> None:
        """Writes checkpoints/NAME.pt."""
        write_checkpoint(self.run.folder / "checkpoints" / f"{name}.pt", self.state())

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes back to where a checkpoint stood."""
        self.run.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.at = Standing(**state["standing"])
        cut_metrics(self.run.folder / "metrics.csv", self.at.step)
        self.run.say(f"resumed at step {self.at.step:,} of {self.run.steps:,}")

    def train_mode(self) -> None:
        """Training mode, but for what is frozen: BatchNorm there keeps its statistics."""
        self.run.model.train()
        for part in self.run.frozen:
            part.eval()

    def names(self, target: Tensor) -> list[str]:
        """Classes of a multi-label target."""
        return [name for name, on in zip(self.run.classes, target.tolist(), strict=True) if on]

    def name_damaged(self, damaged: list[str]) -> None:
        """Says once of each damaged image that it is left out."""
        for line in damaged:
            if line not in self.named:
                self.named.add(line)
                self.run.say(f"left out: {line}")

    def note(self) -> str:
        """What stands behind the progress bar."""
        at = self.at
        rate = at.step * self.run.batch_size / max(at.seconds, 1e-9)
        share = 100 * self.at.waited / max(at.seconds, 1e-9)
        seen = max(1, at.seen)
        return f"loss {at.loss / seen:.3f}  acc {100 * at.correct / seen:.1f} %  {rate:.0f} img/s  wait {share:.1f} %"

    def bar(self) -> Progress:
        """The progress bar."""
        columns = ("[progress.description]{task.description}", "{task.fields[note]}")
        bar = Progress(
            TextColumn(columns[0]),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn(columns[1]),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.run.console,
            transient=True,
        )
        self.task = bar.add_task("training", total=self.run.steps, completed=self.at.step, note="")
        return bar

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the run after the present step, with a checkpoint."""

        def note(number: int, frame: Any) -> None:
            self.signal = number

        old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
