"""What the teacher says counts as it should, in whatever order it knows the classes."""

import json
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console

from supertokenvit.data.augmentation import normalize
from supertokenvit.model_folder import load_model
from supertokenvit.prediction import Predictor
from supertokenvit.training.distillation import Teacher
from supertokenvit.training.recipe import Recipe, RecipeError
from supertokenvit.training.run import train_recipe

from .conftest import TINY, make_folder

CONFIG = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.4, 0.3)}


def run(data, out, **changes):
    return train_recipe(
        Recipe(**(TINY | {"data": str(data), "out": str(out)} | changes)), console=Console(quiet=True)
    ).path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    return run(make_folder(folder / "data", classes=("cat", "dog", "eel")), folder / "run", epochs=1)


def teacher(trained, classes, **changes):
    return Teacher(replace(Recipe(teacher=str(trained)), **changes), classes, CONFIG, torch.device("cpu"))


def test_the_teacher_answers_as_it_would_alone_in_the_students_order(trained):
    pixels = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    alone = Predictor.of(load_model(trained)).logits(pixels)
    student_sees = normalize(pixels, **CONFIG)
    torch.testing.assert_close(teacher(trained, ["cat", "dog", "eel"]).logits(student_sees), alone)
    torch.testing.assert_close(teacher(trained, ["eel", "cat"]).logits(student_sees), alone[:, [2, 0]])
    larger = F.interpolate(student_sees, [32, 32])
    assert teacher(trained, ["eel", "cat"]).logits(larger).shape == (4, 2)


def test_the_loss_is_the_divergence_written_out(trained):
    images, logits = torch.randn(5, 3, 16, 16), torch.randn(5, 2, requires_grad=True)
    guide = teacher(trained, ["dog", "cat"], temperature=2.0)
    p, q = (guide.logits(images) / 2).softmax(1), (logits / 2).softmax(1)
    loss = guide.loss(images, logits)
    torch.testing.assert_close(loss, 4 * (p * (p / q).log()).sum())
    loss.backward()
    torch.testing.assert_close(logits.grad, 2 * (q - p).detach())


def test_a_student_of_the_teacher_alone_comes_to_agree_with_it(tmp_path):
    data = tmp_path / "data"
    for part, seed in (("train", 0), ("val", 1)):
        make_folder(data / part, per_class=20, seed=seed)
    plain = {"mixup": 0.0, "cutmix": 0.0, "drop_path": 0.0, "erasing": 0.0, "ema": None, "epochs": 6}
    master = run(data, tmp_path / "master", **plain)
    # training labels that say the opposite are of no account when the teacher has the whole loss
    for old, new in (("cat", "x"), ("dog", "cat"), ("x", "dog")):
        (data / "train" / old).rename(data / "train" / new)
    student = run(data, tmp_path / "student", seed=1, teacher=str(master), teacher_share=1.0, **plain)
    accuracy = [json.loads((out / "evaluation.json").read_text())["validation"]["top1"] for out in (master, student)]
    assert min(accuracy) > 0.9


def test_teachers_that_cannot_teach_are_refused(trained, tmp_path):
    with pytest.raises(RecipeError, match="does not know the class 'fox'"):
        teacher(trained, ["cat", "fox"])
    with pytest.raises(RecipeError, match="no run folder, and timm says"):
        teacher("no_such_model", ["cat"])
    with pytest.raises(RecipeError, match="teacher_share=2"):
        Recipe(teacher_share=2)
    assert asdict(Recipe())["teacher"] is None
