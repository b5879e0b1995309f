"""Writes the names and shapes of every variant's weights, with which a test compares.

python -m studies.snapshots

Run it after an intended change of the family; older weights may no longer load.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import timm

import supertokenvit  # noqa: F401  registers the models
from supertokenvit.model.family import VARIANTS

from .common import ROOT, refuse_options


def snapshot(name: str) -> Path:
    """Returns the file of a variant."""
    return ROOT / "tests" / "model" / "snapshots" / f"{name}.json"


def shapes(name: str) -> dict[str, list[int]]:
    """Returns the shape of each weight of a variant."""
    weights = timm.create_model(name, device="meta").state_dict()
    return {key: list(weight.shape) for key, weight in weights.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the snapshot of every variant."""
    refuse_options(__doc__, argv)
    for variant in VARIANTS:
        snapshot(variant).parent.mkdir(exist_ok=True)
        snapshot(variant).write_text(json.dumps(shapes(variant), indent=0) + "\n")


if __name__ == "__main__":
    main()
