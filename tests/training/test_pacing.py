"""A time budget by a clock of the test's own: steps and evaluations take what the test says."""

import types

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from supertokenvit.tasks import Evaluation
from supertokenvit.training import judge, loop
from supertokenvit.training.checkpoint import Standing
from supertokenvit.training.optimizer import learning_rate
from supertokenvit.training.pacing import Pace, steps_until
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.run import train_recipe

from .conftest import TINY, make_folder


@given(
    st.floats(0.1, 60), st.integers(1, 3000), st.floats(1e-2, 10), st.floats(0, 100), st.integers(1, 200), st.booleans()
)
def test_a_plan_made_anew_leaves_room_for_every_evaluation(minutes, step, each, look, every, known):
    done = step // every
    at = Standing(step=step, seconds=step * each + done * look, evaluating=done * look, evaluations=done)
    pace = Pace(evaluation=look)
    pace.note(each, 32)
    steps = steps_until(minutes, at, every, pace)

    def seconds(steps):  # one step after the other
        evaluations = sum(s % every == 0 or s == steps for s in range(step + 1, steps + 1))
        return at.seconds + (steps - step) * each + evaluations * look

    assert steps > step
    assert seconds(steps) <= 60 * minutes or steps == step + 1
    if steps < step + 2000:
        assert seconds(steps + 2) > 60 * 0.98 * minutes


class Clock:
    """The time that a training sees: each step and evaluation takes what the scenario says."""

    def __init__(self, step, evaluation):
        self.now, self.step, self.evaluation, self.rates = 0.0, step, evaluation, []

    def monotonic(self):
        return self.now

    def trained(self, trainer, *batch):
        self.rates.append(learning_rate(trainer.at.step, trainer.run.steps, trainer.recipe))
        self.now += self.step(trainer.at.step)
        trainer.at.seen += 1

    def evaluated(self, model):
        self.now += self.evaluation
        return Evaluation(images=1, loss=1.0, top1=0.5)


@pytest.mark.parametrize(
    ("step", "evaluation"),
    [
        (lambda s: 1.0, 0.0),
        (lambda s: 1.0, 10.0),  # every 20 steps: a third of the time
        (lambda s: 1.0, 60.0),
        (lambda s: 40.0 if s == 0 else 1.0, 10.0),  # something else had the cores
        (lambda s: 30.0 if s < 3 else 1.0, 0.0),
        (lambda s: 1.0 + s / 1500, 10.0),
        (lambda s: 0.5, 5.0),
    ],
    ids=["no evaluations", "a third", "three quarters", "slow first", "slow three", "slower and slower", "faster"],
)
def test_a_time_budget_is_kept_and_the_learning_rate_falls_smoothly_to_its_end(tmp_path, monkeypatch, step, evaluation):
    data = make_folder(tmp_path / "data", per_class=89)  # 160 for training, 20 steps an epoch
    clock = Clock(step, evaluation)
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(monotonic=clock.monotonic))
    monkeypatch.setattr(loop.Trainer, "step", lambda self, *batch: clock.trained(self, *batch))
    monkeypatch.setattr(judge.Judge, "validate", clock.evaluated)
    monkeypatch.setattr(loop.Trainer, "finish", lambda self: None)
    # what is measured before the first step knows nothing of decoding: evaluations look nearly free
    monkeypatch.setattr("supertokenvit.training.assembly.seconds_per_image", lambda *a: (1 / 8, 1e-6))
    options = TINY | {"epochs": None, "minutes": 20.0, "lr": 1.0, "warmup": 0.1, "patience": None, "cache": "memory"}
    train_recipe(Recipe(data=str(data), out=str(tmp_path / "run"), **options), console=Console(quiet=True))
    assert 0.95 * 1200 <= clock.now <= 1.05 * 1200
    rates = clock.rates
    top = rates.index(max(rates))
    falls = [a - b for a, b in zip(rates[top:], rates[top + 1 :], strict=False)]
    assert max(falls) < 0.05 and rates[-1] < 0.01
    assert min(falls[5:], default=0) > -0.02
