"""The training loop. Everything random is a function of seed, epoch, sample and step: a resumed run is the same run."""

import math
import signal
import threading
import time
from dataclasses import asdict
from typing import Any, Literal, NoReturn

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from ..data.augmentation import seed_step
from ..data.loading import StepBatches, default_workers, train_loader
from ..evaluation import EvaluationError
from ..run_folder import RunFolder
from .assembly import Run
from .callbacks import Event
from .checkpoint import Standing, read_checkpoint, write_checkpoint
from .judge import Judge
from .optimizer import learning_rate
from .pacing import Pace, steps_until
from .processes import LostProcess
from .progress import Interruption, TrainingBar, TrainingStopped
from .report import append_metrics, cut_metrics
from .starting_model import build
from .step import NotFinite, TrainingStep

WAITING = 0.1  # of the time: from here on it is said how much goes into waiting for data
SETTLED = 0.5  # of the steps: from here on BatchNorm's statistics stay, if images have several sizes
DROPOUT = 1 << 30  # keeps its random numbers apart from those of places in a batch


class Trainer:
    """The loop over the parts of a run.

    Args:
        run: From assembly.begin or assembly.reopen.
        state: A checkpoint to go on from.
        interruption: That the run listens to.
    """

    def __init__(self, run: Run, state: dict[str, Any] | None = None, interruption: Interruption | None = None) -> None:
        self.run, self.recipe, self.processes = run, run.recipe, run.processes
        if state is not None:
            run.model.load_state_dict(state["model"])
        ema = run.recipe.ema
        self.ema = ModelEmaV3(run.model, decay=ema, use_warmup=True, warmup_power=0.75) if ema is not None else None
        model, self.optimizer = self.processes.spread(run.model, run.recipe)
        self.update = TrainingStep(
            model,
            self.optimizer,
            run.task,
            run.device,
            precision=run.recipe.precision,
            accumulate=run.recipe.accumulate,
            clip_grad=run.recipe.clip_grad,
            teacher=run.teacher,
            teacher_share=run.recipe.teacher_share,
            processes=run.processes,
        )
        self.eval_every = max(1, round(run.recipe.eval_epochs * run.per_epoch))
        self.workers = default_workers() if run.recipe.workers is None else run.recipe.workers
        self.place = self.processes.share(run.batch_size)
        self.at = Standing()
        self.waiting_said = self.settled = False
        self.named = {str(error) for error in run.images.damaged}
        self.interruption = interruption or Interruption()
        self.judge = Judge(run, self.workers, again=state is not None)
        self.pace = Pace(run.seconds_of_evaluation + self.judge.decoding)
        if state is not None:
            self.load_state(state)

    def fit(self) -> RunFolder:
        """Runs from where it stands to the last step; then saves the best model and reports the test set, if any."""
        try:
            with self.processes.watched():
                self.tell("train_start")
                self.work()
                self.interruption.advice = f"the training is done; measure the model with --resume {self.run.folder}"
                self.finish()
            self.processes.leave_at_exit()
        except LostProcess as error:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher's, which would come before the message
            raise TrainingStopped(
                f"{error}, at step {self.at.step:,}: go on from the last checkpoint with --resume {self.run.folder}"
            ) from error
        return self.run.folder

    def work(self) -> None:
        """Makes the steps, with evaluations and checkpoints between them."""
        run, at = self.run, self.at
        eval_every = self.eval_every
        # a time budget is checked, and planned anew, ten times at least
        save_every = 60 * min(self.recipe.checkpoint_minutes, (self.recipe.minutes or math.inf) / 10)
        weights = run.sample_weights
        batches = StepBatches(
            len(run.images),
            run.batch_size,
            sizes=self.recipe.training_sizes,
            seed=self.recipe.seed,
            first=at.step,
            weights=weights,
            share=self.place,
        )
        loader = iter(train_loader(run.images, batches, self.workers))
        saved = started = time.monotonic()
        before = at.seconds
        self.train_mode()
        enough = self.out_of_patience()
        bar = TrainingBar(run.console, run.steps, at.step, run.task, hidden=not self.processes.is_main)
        with self.interruption.steps(), bar:
            while at.step < run.steps and not enough:
                waiting = time.monotonic()
                images, targets, indices, damaged = next(loader)
                at.waited += time.monotonic() - waiting
                self.step(images, targets, indices, damaged)
                at.step += 1
                evaluating = time.monotonic()
                self.pace.note(evaluating - waiting, images.shape[-1])
                at.seconds = before + evaluating - started
                bar.update(run.steps, at, run.batch_size)
                due = at.step % eval_every == 0 or at.step == run.steps
                if due:
                    enough = self.evaluate_and_save()
                    at.evaluating += time.monotonic() - evaluating
                    at.evaluations += 1
                late = self.processes.is_main and time.monotonic() - saved > save_every
                save, stop = self.processes.total(late, self.interruption.number is not None)
                if due or save or stop:
                    at.seconds = self.processes.from_main(lambda: before + time.monotonic() - started)
                    if self.recipe.minutes is not None and at.step < run.steps:
                        run.steps = self.processes.from_main(self.steps_that_fit)
                    self.save_state("last")
                    saved = time.monotonic()
                if stop:
                    name = self.interruption.name
                    raise TrainingStopped(f"{name} at step {at.step:,}; go on with --resume {run.folder}")

    def step(self, images: Tensor, targets: Any, indices: list[int], damaged: list[str]) -> None:
        """Augments a batch and updates the weights with it (step.TrainingStep)."""
        run, at = self.run, self.at
        if not len(images):
            raise TrainingStopped(f"step {at.step:,}: no image of a batch can be decoded: {damaged[0]}")
        if damaged:  # a smaller batch would have another gradient, and BatchNorm none of a single image
            again = torch.arange(self.place.stop - self.place.start) % len(images)
            images, targets = images[again], targets[again]
        if self.processes.total(len(damaged))[0]:
            self.name_damaged(sum(self.processes.gather(damaged), []))
        waiting = time.monotonic()
        inputs, soft = run.augment(images, targets, self.recipe.seed, at.step + 1, self.place.start)
        at.waited += time.monotonic() - waiting
        if at.step == 0 and self.processes.is_main:
            run.task.draw_samples(run.folder.samples, inputs[:24].contiguous(), targets[:24], run.classes)
        if len(set(self.recipe.training_sizes)) > 1:
            self.settle_norms()
        seed_step(self.recipe.seed, at.step + 1, DROPOUT + self.processes.rank)
        lr = learning_rate(at.step, run.steps, self.recipe)
        try:
            outcome = self.update(inputs, soft, lr)
        except NotFinite as error:
            self.stop_not_finite(lr, indices, error)
        at.loss += outcome.loss
        at.correct += outcome.hits
        at.seen += outcome.images
        if self.ema is not None:
            self.ema.update(run.model, step=at.step)

    def steps_that_fit(self) -> int:
        """Returns the steps of the whole run that its time budget leaves room for."""
        assert self.recipe.minutes is not None
        return steps_until(self.recipe.minutes, self.at, self.eval_every, self.pace)

    def stop_not_finite(self, lr: float, indices: list[int], error: NotFinite) -> NoReturn:
        """Ends the run, naming step, learning rate and the batch's files."""
        files = [self.run.images.source.name(i) for i in sum(self.processes.gather(indices), [])]
        if self.processes.is_main:
            self.run.folder.not_finite.write_text("\n".join(files) + "\n", encoding="utf-8")
        raise TrainingStopped(
            f"{error} at step {self.at.step:,} with lr {lr:.2g}; try a lower lr. Files of the batch: "
            f"{', '.join(files[:4])}{f' and {len(files) - 4} more' if len(files) > 4 else ''} "
            f"(all in {self.run.folder.not_finite.name})"
        ) from error

    def evaluate_and_save(self) -> bool:
        """Validates, keeps the best weights, writes the metrics; says whether patience has run out."""
        run, at, task = self.run, self.at, self.run.task
        self.share_buffers()
        try:
            result = self.judge.validate(self.present())
        except EvaluationError:
            self.save_state("last")  # so that --resume can go on with --skip_damaged true
            raise
        score = task.score_of(result)
        # among equals the lower loss: small validation sets count few images
        loss = result.loss or 0.0  # where there is none, the earlier
        better = (score, -loss) > (at.best, -at.best_loss)
        if better:
            at.best, at.best_loss, at.best_step = score, loss, at.step
        at.stale = 0 if better else at.stale + 1
        row = {
            "step": at.step,
            "epoch": at.step / run.per_epoch,
            "lr": learning_rate(at.step - 1, run.steps, self.recipe),
            "train_loss": at.loss / max(1, at.seen),
            **({"train_accuracy": at.correct / max(1, at.seen)} if task.hits_name else {}),
            **({} if result.loss is None else {"val_loss": result.loss}),
            f"val_{task.score}": score,
            "images_per_second": at.rate(run.batch_size),
            "data_wait": at.waited / max(at.seconds, 1e-9),
            "minutes": at.seconds / 60,
        }
        if self.processes.is_main:
            append_metrics(run.folder.metrics, row)
        self.tell("evaluation", row)
        at.loss, at.correct, at.seen = 0.0, 0.0, 0
        run.log(
            f"epoch {row['epoch']:.1f}/{run.steps / run.per_epoch:.1f}  loss {row['train_loss']:.3f}  "
            f"{task.short_name} {100 * score:.2f} %{' (best)' if better else ''}  "
            f"{row['images_per_second']:.0f} images/s  {row['minutes']:.1f} min"
        )
        if row["data_wait"] > WAITING and not self.waiting_said:
            self.waiting_said = True
            run.log(f"{100 * row['data_wait']:.0f} % of the time go into waiting for data: more --workers may help")
        if better:
            self.save_state("best")
        return self.out_of_patience()

    def out_of_patience(self) -> bool:
        """Says whether there were enough evaluations without a better one."""
        return self.recipe.patience is not None and self.at.stale >= self.recipe.patience

    def present(self) -> nn.Module:
        """Returns the model as it would be kept now: the running mean of the weights, if there is one."""
        return self.run.model if self.ema is None else self.ema.module

    def finish(self) -> None:
        """Saves the best weights as the model, and says how good it is."""
        run, task = self.run, self.run.task
        kind = "model" if self.ema is None else "ema"
        best = self.processes.from_main(lambda: read_checkpoint(run.folder.best)[kind])
        model = build(self.recipe, len(run.classes), type(run.task)) if self.recipe.shard else self.present()
        model.load_state_dict(best)
        scores = self.judge.finish(model, self.at.best_step)
        tested = f", test {task.score_name} {100 * scores['test']:.2f} %" if "test" in scores else ""
        run.log(
            f"done in {self.at.seconds / 60:.1f} min: best validation {task.score_name} "
            f"{100 * scores['validation']:.2f} % (step {self.at.best_step:,}){tested}"
        )
        run.log(f"run folder: {run.folder}")
        self.tell("train_end", scores)

    def tell(self, kind: Literal["train_start", "evaluation", "checkpoint", "train_end"], figures: Any = None) -> None:
        """Tells the callbacks of an event, in the main process."""
        if self.processes.is_main:
            event = Event(kind, self.run.folder, self.recipe, self.at.step, dict(figures or {}))
            for callback in self.run.callbacks:
                callback(event)

    def state(self) -> dict[str, Any]:
        """Returns everything that the rest of the run depends on."""
        self.share_buffers()
        return self.processes.states(self.run.model, self.optimizer) | {
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
            "standing": asdict(self.at),
            "steps": self.run.steps,
            "fingerprint": self.judge.fingerprint,
        }

    def share_buffers(self) -> None:
        """Gives all processes the main one's BatchNorm statistics: those are what is saved."""
        for model in (self.run.model, *([] if self.ema is None else [self.ema.module])):
            self.processes.share_buffers(model)

    def save_state(self, name: Literal["last", "best"]) -> None:
        """Writes a checkpoint."""
        state, path = self.state(), getattr(self.run.folder, name)
        self.processes.from_main(lambda: write_checkpoint(path, state))
        self.tell("checkpoint")

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes back to where a checkpoint stood; the model's weights are there already."""
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.processes.load_optimizer(self.run.model, self.optimizer, state["optimizer"])
        self.at = Standing(**state["standing"])
        if self.processes.is_main:
            cut_metrics(self.run.folder.metrics, self.at.step)
        self.run.log(f"resumed at step {self.at.step:,} of {self.run.steps:,}")

    def train_mode(self) -> None:
        """Sets training mode, but for what is frozen: BatchNorm there keeps its statistics."""
        self.run.model.train()
        for part in self.run.frozen:
            part.eval()

    def settle_norms(self) -> None:
        """Lets BatchNorm normalise by its running statistics from SETTLED of the steps on.

        Those are a mean over the sizes, and the model will be used with them; a batch of one size has others.
        """
        settled = self.at.step >= SETTLED * self.run.steps
        if settled and not self.settled:
            self.share_buffers()
        self.settled = settled
        self.train_mode()
        for layer in self.run.model.modules():
            if settled and isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()

    def name_damaged(self, damaged: list[str]) -> None:
        """Says once of each damaged image that it is left out."""
        for line in damaged:
            if line not in self.named:
                self.named.add(line)
                self.run.log(f"left out: {line}")
