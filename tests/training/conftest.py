import numpy as np
import pytest
from PIL import Image

TINY = {
    "model": "stt_nano",
    "model_args": {"width": 32, "heads": 2, "local_layers": 1, "global_layers": 1},
    "img_size": 16,
    "batch_size": 8,
    "precision": "fp32",
    "epochs": 2,
    "lr": 1e-3,
    "ema": 0.9,
    "mixup": 0.2,
    "cutmix": 0.5,
    "drop_path": 0.1,
    "erasing": 0.25,
    "hflip": 0.5,
    "device": "cpu",
}


def make_folder(root, classes=("cat", "dog"), per_class=12, size=16, seed=0):
    """Class folders of noise images whose mean colour tells the class."""
    rng = np.random.default_rng(seed)
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.integers(0, 120, (size, size, 3)) + 60 * (k % 3)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i:03}.png")
    return root


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "animals")
