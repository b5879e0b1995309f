"""Folders of images with masks, to learn from."""

import numpy as np
from PIL import Image

TINY = {
    "model": "stt_nano",
    "model_args": {
        "width": 32,
        "heads": 2,
        "local_layers": 1,
        "global_layers": 1,
        "stem_convs": 1,
        "decoder_pyramid_channels": 32,
        "decoder_segmentation_channels": 16,
    },  # fmt: skip
    "img_size": 64,
    "batch_size": 4,
    "precision": "fp32",
    "epochs": 2,
    "lr": 1e-3,
    "device": "cpu",
    "head": "fpn",
    "opt": "adamw",
}


def draw(seed, width=96, height=72):
    """An image whose left part is dark and right part bright, with noise; its mask, 0 and 1, and 255 between."""
    rng = np.random.default_rng(seed)
    border = int(rng.integers(width // 4, 3 * width // 4))
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[:, border:] = 1
    pixels = rng.integers(0, 90, (height, width, 3)) + 150 * mask[..., None]
    mask[:, border : border + 2] = 255
    return Image.fromarray(pixels.astype(np.uint8)), mask


def write_pair(folder, name, seed, **size):
    """One image with its mask below a folder."""
    image, mask = draw(seed, **size)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    image.save(folder / "images" / f"{name}.png")
    Image.fromarray(mask).save(folder / "masks" / f"{name}.png")


def make_masks(root, train=12, val=4, test=0, classes=("dark", "bright")):
    """A data set of such images."""
    number = 0
    for split, count in {"train": train, "val": val, "test": test}.items():
        for _ in range(count):
            write_pair(root / split, f"{number:03}", number)
            number += 1
    if classes:
        (root / "classes.txt").write_text("\n".join(classes) + "\n")
    return root
