import contextlib
import tarfile
import zipfile
from concurrent.futures import Future

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from supertokenvit.bulk import command, workers
from supertokenvit.model_folder import ModelCard, TrainedModel, save_model

from ..training.conftest import TINY

CLASSES = ["cat", "dog", "emu"]


def make_model(path, *, tta="flip", seed=0):
    """A model folder with random weights."""
    torch.manual_seed(seed)
    model = timm.create_model(TINY["model"], num_classes=3, img_size=16, **TINY["model_args"]).eval()
    config = timm.data.resolve_data_config({}, model=model) | {
        "input_size": (3, 16, 16),
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
    }
    save_model(TrainedModel(model, CLASSES, config, ModelCard(tta=tta), path))
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("bulk") / "model")


def make_pictures(folder, count=23, bad=(5,)):
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / f"{i:03}.png")
    for i in bad:
        (folder / f"{i:03}.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def pictures(tmp_path):
    return make_pictures(tmp_path / "pictures")


def packed(folder, path):
    """The files of a folder as an archive."""
    files = sorted(folder.iterdir())
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, file.name)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
            for file in files:
                archive.add(file, file.name)
    return path


class Inline:
    """A pool that answers at once in this process, so that quick tests start none; it counts the shards."""

    def __init__(self):
        self.answered = 0

    def submit(self, call, *args):
        future = Future()
        future.set_result(call(*args))
        self.answered += 1
        return future


@pytest.fixture
def inline(monkeypatch):
    pool = Inline()
    monkeypatch.setattr(command, "ROWS", 4)
    monkeypatch.setattr(workers, "workers", lambda processes: contextlib.nullcontext(pool))
    return pool
