"""Measures the models of a run on its validation and test images, and keeps the best one."""

import time
from dataclasses import replace

import numpy as np
from torch import nn

from ..console import watched
from ..data.loading import eval_batches
from ..data.sources import ProcessShare, Source, Subset
from ..data.splits import fingerprint
from ..evaluation import Answers, EvaluationError, answer, refusal
from ..model.folding import divide_logits
from ..model_folder import ModelCard, TrainedModel, save_model
from ..prediction import Predictor
from ..tasks import Evaluation
from .assembly import Run
from .report import write_report

LOOKED_AT = 2000  # validation images that are decoded before the first step


class Judge:
    """What a run knows of how good its models are.

    Args:
        run: From assembly.begin or assembly.reopen.
        workers: Processes that decode images which are not in memory.
        again: The run goes on, so that its validation images have been looked at.

    Raises:
        EvaluationError: A validation image is damaged.
    """

    def __init__(self, run: Run, workers: int, *, again: bool) -> None:
        self.run, self.workers = run, workers
        self.fingerprint = fingerprint(run.splits.train)
        self.decoding = 0.0
        """Seconds that decoding all validation images takes in each evaluation, if it was measured."""
        self.val_batches = self.decode_validation(again)

    def decode_validation(self, again: bool) -> list | None:
        """Decodes this process's validation images before the first step, as a damaged one would end the run later.

        They are kept if the training images are in memory. Otherwise at most LOOKED_AT of them are looked at, and none
        when the run goes on: an evaluation that a damaged image ends loses no step.
        """
        run, in_memory = self.run, self.run.images.images is not None
        if not in_memory and (run.recipe.skip_damaged or again):
            return None
        began = time.monotonic()
        share: Source = ProcessShare(run.val, run.processes.rank, run.processes.count)
        every = len(share)
        if not in_memory and every > LOOKED_AT:
            share = Subset(share, np.linspace(0, every - 1, LOOKED_AT).astype(np.int64))
        kept, damaged = [], []
        batches = eval_batches(
            share, run.task.preprocess(run.data_config), run.task.at_once, 0 if in_memory else self.workers
        )
        for batch in watched(batches, "Decoding validation images", -(-len(share) // run.task.at_once), run.console):
            damaged += [str(error) for error in batch[2]]
            kept += [batch] if in_memory else []
        damaged = sum(run.processes.gather(damaged), [])
        if damaged and not run.recipe.skip_damaged:
            raise EvaluationError(refusal(damaged[0]))
        if in_memory:
            return kept
        self.decoding = (time.monotonic() - began) * every / len(share)
        return None

    def answers(self, model: nn.Module, source: Source, precision: str = "fp32") -> Answers:
        """Lets a model answer for images, shared among the processes."""
        run = self.run
        return answer(
            Predictor.of(self.described(model), run.device, precision),
            source,
            batches=self.val_batches if source is run.val else None,
            batch_size=run.task.at_once,
            workers=0 if len(source) < 2000 else self.workers,
            skip_damaged=run.recipe.skip_damaged,
            progress=False,
            share=ProcessShare(source, run.processes.rank, run.processes.count),
            gather=run.processes.gather,
        )

    def figures(self, answers: Answers) -> Evaluation:
        """Measures answers; what follows from the figures must not differ in a last bit from process to process."""
        return self.run.processes.from_main(lambda: answers.figures(self.run.task, self.run.classes))

    def validate(self, model: nn.Module) -> Evaluation:
        """Measures a model on the validation images, in the precision of the training, which is enough to choose by."""
        return self.figures(self.answers(model, self.run.val, self.run.recipe.precision))

    def described(
        self, model: nn.Module, steps: int | None = None, temperature: float = 1.0, scores: dict | None = None
    ) -> TrainedModel:
        """Describes a model as it will be used.

        Args:
            model: The network.
            steps: Training steps behind its weights.
            temperature: By which its logits were divided.
            scores: What was measured of it, by split.
        """
        run, recipe = self.run, self.run.recipe
        card = ModelCard(
            task=run.task.name,
            tta=recipe.tta,
            data=recipe.data,
            data_fingerprint=self.fingerprint,
            data_license=recipe.data_license,
            split_rule=run.splits.rule,
            val_fraction=recipe.val_fraction,
            seed=recipe.seed,
            ignore=recipe.ignore,
            temperature=temperature,
            threshold=run.task.threshold,
            steps=steps,
            scores=scores or {},
        )
        return TrainedModel(model, run.classes, run.data_config, card, run.folder.model)

    def finish(self, model: nn.Module, steps: int) -> dict[str, float]:
        """Saves the best model of the run, draws the pictures, measures the test set once, and returns the scores.

        Args:
            model: With the best weights. Its logits are divided by the temperature that fits the validation images.
            steps: Training steps behind them.
        """
        run, task = self.run, self.run.task
        answers = self.answers(model, run.val)
        temperature = run.processes.from_main(lambda: task.temperature(answers.logits, answers.targets))
        if temperature != 1.0:
            temperature = temperature if divide_logits(model, temperature) else 1.0
            answers = replace(answers, logits=answers.logits / temperature)
        results = {"validation": self.figures(answers)}
        task.threshold = results["validation"].threshold
        scores = self.keep(model, steps, temperature, results)  # already now: a test image may be damaged
        if run.splits.test is not None:
            results["test"] = self.figures(self.answers(model, run.splits.test))
            scores = self.keep(model, steps, temperature, results)
        return scores

    def keep(
        self, model: nn.Module, steps: int, temperature: float, results: dict[str, Evaluation]
    ) -> dict[str, float]:
        """Writes the model folder and the figures of the splits that have been measured, and returns their scores."""
        task = self.run.task
        scores = {split: task.score_of(result) for split, result in results.items()}
        if self.run.processes.is_main:
            write_report(self.run.folder, results, task)
            save_model(self.described(model, steps, temperature, scores))
        return scores
