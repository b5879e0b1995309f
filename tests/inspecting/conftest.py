import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

SIDE = 64


def crops():
    """Pieces of two photographs that do not overlap; neighbouring ones are much alike, as those of sky and water."""
    for photograph in load_sample_images().images:
        height, width = photograph.shape[:2]
        for top in range(0, height - SIDE + 1, SIDE):
            for left in range(0, width - SIDE + 1, SIDE):
                yield Image.fromarray(photograph[top : top + SIDE, left : left + SIDE])


def recompressed(image):
    content = io.BytesIO()
    image.save(content, "JPEG", quality=35)
    return Image.open(content)


COPIES = {
    "recompressed": recompressed,
    "smaller": lambda image: image.resize((43, 43), Image.Resampling.BICUBIC),
    "larger": lambda image: image.resize((150, 150), Image.Resampling.BILINEAR),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


@pytest.fixture(scope="session")
def copied(tmp_path_factory):
    """A folder of crops with copies of some, and the pairs that show the same."""
    folder = tmp_path_factory.mktemp("copied")
    pieces = list(crops())
    truth = set()
    for number, piece in enumerate(pieces):
        piece.save(folder / f"{number:03}.png")
    chosen = np.random.default_rng(0).permutation(len(pieces))[:40]
    for place, number in enumerate(chosen.tolist()):
        how = list(COPIES)[place % len(COPIES)]
        COPIES[how](pieces[number]).save(folder / f"copy-{number:03}-{how}.png")
        truth.add(frozenset({f"{number:03}.png", f"copy-{number:03}-{how}.png"}))
    return folder, truth
