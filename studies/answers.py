"""Writes what the shipped models answer for two images of noise, with which a test compares.

python -m studies.answers

Run it after shipped weights have changed.
"""

import json
from collections.abc import Sequence

import torch

from supertokenvit.model.family import SHIPPED
from supertokenvit.prediction import load

from .common import ROOT, refuse_options

ANSWERS = ROOT / "tests" / "answers.json"


def answers(name: str) -> list[list[float]]:
    """Returns the logits of a shipped model for two images of noise, rounded."""
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.inference_mode():
        return [[round(value, 3) for value in row] for row in load(name, device="cpu").logits(images).tolist()]


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the answers of every shipped model."""
    refuse_options(__doc__, argv)
    ANSWERS.write_text(json.dumps({name: answers(name) for name in SHIPPED}, indent=0) + "\n")


if __name__ == "__main__":
    main()
