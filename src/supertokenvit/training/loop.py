"""The training loop. Everything random is a function of seed, epoch, sample and step: a resumed run is the same run."""

import math
import signal
import threading
import time
from dataclasses import asdict
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from ..console import watched
from ..data.augmentation import seed_step
from ..data.loading import StepBatches, default_workers, eval_batches, train_loader
from ..data.sources import ProcessShare, Source, Subset
from ..data.splits import fingerprint
from ..evaluation import Answers, EvaluationError, answer, refusal
from ..model_folder import ModelCard, TrainedModel, save_model
from ..prediction import Predictor
from ..preprocessing import Preprocess
from ..run_folder import RunFolder
from ..tasks import Evaluation
from .assembly import Run
from .callbacks import Event
from .checkpoint import Standing, read_checkpoint, write_checkpoint
from .optimizer import learning_rate
from .pacing import Pace, steps_until
from .processes import LostProcess
from .progress import Interruption, TrainingBar, TrainingStopped
from .report import append_metrics, cut_metrics, draw_samples, write_report
from .starting_model import build
from .step import NotFinite, TrainingStep

LOOKED_AT = 2000  # validation images that are decoded before the first step
WAITING = 0.1  # of the time: from here on it is said how much goes into waiting for data
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
        self.fingerprint = fingerprint(run.splits.train)
        self.at = Standing()
        self.waiting_said = False
        self.named = {str(error) for error in run.images.damaged}
        self.interruption = interruption or Interruption()
        self.pace = Pace(run.seconds_of_evaluation)
        self.val_batches = self.decode_validation(again=state is not None)
        if state is not None:
            self.load_state(state)

    def decode_validation(self, again: bool) -> list | None:
        """Decodes this process's validation images before the first step, as a damaged one would end the run later.

        They are kept if the training images are in memory. Otherwise at most LOOKED_AT of them are looked at, and none
        when the run goes on: an evaluation that a damaged image ends loses no step.

        Args:
            again: The run goes on.
        """
        run, in_memory = self.run, self.run.images.images is not None
        if not in_memory and (self.recipe.skip_damaged or again):
            return None
        began = time.monotonic()
        share: Source = ProcessShare(run.val, self.processes.rank, self.processes.count)
        every = len(share)
        if not in_memory and every > LOOKED_AT:
            share = Subset(share, np.linspace(0, every - 1, LOOKED_AT).astype(np.int64))
        kept, damaged = [], []
        batches = eval_batches(share, Preprocess(run.data_config), 256, 0 if in_memory else self.workers)
        for batch in watched(batches, "Decoding validation images", -(-len(share) // 256), run.console):
            damaged += [str(error) for error in batch[2]]
            kept += [batch] if in_memory else []
        damaged = sum(self.processes.gather(damaged), [])
        if damaged and not self.recipe.skip_damaged:
            raise EvaluationError(refusal(damaged[0]))
        if in_memory:
            return kept
        self.pace.evaluation += (time.monotonic() - began) * every / len(share)
        return None

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
            len(run.images), run.batch_size, seed=self.recipe.seed, first=at.step, weights=weights, share=self.place
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
                self.pace.note(evaluating - waiting)
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

    def step(self, images: Tensor, targets: Tensor, indices: list[int], damaged: list[str]) -> None:
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
            draw_samples(run.folder.samples, inputs[:24].contiguous(), targets[:24], run.classes)
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
            result = self.evaluate_on(run.val, cached=True, precision=self.recipe.precision)
        except EvaluationError:
            self.save_state("last")  # so that --resume can go on with --skip_damaged true
            raise
        score = task.score_of(result)
        # among equals the lower loss: small validation sets count few images
        better = (score, -result.loss) > (at.best, -at.best_loss)
        if better:
            at.best, at.best_loss, at.best_step = score, result.loss, at.step
        at.stale = 0 if better else at.stale + 1
        row = {
            "step": at.step,
            "epoch": at.step / run.per_epoch,
            "lr": learning_rate(at.step - 1, run.steps, self.recipe),
            "train_loss": at.loss / max(1, at.seen),
            "train_accuracy": at.correct / max(1, at.seen),
            "val_loss": result.loss,
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

    def answers_on(
        self, source: Source, trained: TrainedModel | None = None, cached: bool = False, precision: str = "fp32"
    ) -> Answers:
        """Lets a model answer, by default the present weights (their running mean, if there is one)."""
        share = ProcessShare(source, self.processes.rank, self.processes.count)
        return answer(
            Predictor.of(trained or self.trained(), self.run.device, precision),
            source,
            batches=self.val_batches if cached else None,
            batch_size=256,
            workers=0 if len(source) < 2000 else self.workers,
            skip_damaged=self.recipe.skip_damaged,
            progress=False,
            share=share,
            gather=self.processes.gather,
        )

    def evaluate_on(
        self, source: Source, trained: TrainedModel | None = None, cached: bool = False, precision: str = "fp32"
    ) -> Evaluation:
        """Measures a model, by default the present weights; the precision of the training is enough to choose by."""
        answers = self.answers_on(source, trained, cached, precision)
        temperature = 1.0 if trained is None else trained.card.temperature
        # what follows from the figures must not differ in a last bit
        return self.processes.from_main(lambda: answers.figures(self.run.task, self.run.classes, temperature))

    def trained(
        self, model: nn.Module | None = None, scores: dict[str, float] | None = None, temperature: float = 1.0
    ) -> TrainedModel:
        """Describes a model as it will be used, by default with the present weights.

        Args:
            model: The network.
            scores: What was measured of it, by split.
            temperature: Of its probabilities.
        """
        run, recipe = self.run, self.recipe
        card = ModelCard(
            task=run.task.name,
            tta=recipe.tta,
            data=recipe.data,
            data_fingerprint=self.fingerprint,
            data_license=recipe.data_license,
            split_rule=run.splits.rule,
            val_fraction=recipe.val_fraction,
            seed=recipe.seed,
            temperature=temperature,
            steps=self.at.best_step,
            scores=scores or {},
        )
        model = model or (self.ema.module if self.ema is not None else run.model)
        return TrainedModel(model, run.classes, run.data_config, card, run.folder.model)

    def finish(self) -> None:
        """Saves the best weights as the model, draws the pictures, and measures the test set once."""
        run, recipe, task = self.run, self.recipe, self.run.task
        kind = "model" if self.ema is None else "ema"
        best = self.processes.from_main(lambda: read_checkpoint(run.folder.best)[kind])
        model = self.trained(build(recipe, len(run.classes)) if recipe.shard else None).model
        model.load_state_dict(best)
        answers = self.answers_on(run.val, self.trained(model), cached=True)
        T = self.processes.from_main(lambda: task.temperature(answers.logits, answers.targets))
        results = {"validation": self.processes.from_main(lambda: answers.figures(task, run.classes, T))}
        self.keep(model, results, T)  # already now: a test image may be damaged
        if run.splits.test is not None:
            results["test"] = self.evaluate_on(run.splits.test, self.trained(model, temperature=T))
            self.keep(model, results, T)
        scores = {split: task.score_of(result) for split, result in results.items()}
        tested = f", test {task.score_name} {100 * scores['test']:.2f} %" if "test" in scores else ""
        run.log(
            f"done in {self.at.seconds / 60:.1f} min: best validation {task.score_name} "
            f"{100 * scores['validation']:.2f} % (step {self.at.best_step:,}){tested}"
        )
        run.log(f"run folder: {run.folder}")
        self.tell("train_end", scores)

    def keep(self, model: nn.Module, results: dict[str, Evaluation], temperature: float) -> None:
        """Writes the model folder and the figures of the splits that have been measured."""
        if not self.processes.is_main:
            return
        task = self.run.task
        write_report(self.run.folder, results, task)
        scores = {split: task.score_of(result) for split, result in results.items()}
        save_model(self.trained(model, scores, temperature))

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
            "fingerprint": self.fingerprint,
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

    def name_damaged(self, damaged: list[str]) -> None:
        """Says once of each damaged image that it is left out."""
        for line in damaged:
            if line not in self.named:
                self.named.add(line)
                self.run.log(f"left out: {line}")
