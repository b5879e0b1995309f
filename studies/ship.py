"""Puts the model of a run into the package, as weights in half precision with a model card.

python -m studies.ship RUN NAME.TAG

The card's words on the data are those of studies/cards/TAG.md; its figures are those of the run.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file, save_file

from supertokenvit.model.family import WEIGHTS
from supertokenvit.model.summary import changed
from supertokenvit.model_folder import CARD as CARD_KEY
from supertokenvit.model_folder import CONFIG, WEIGHTS_FILE, ModelCard
from supertokenvit.run_folder import RunFolder
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.report import read_metrics

from .common import STUDIES

CARDS = STUDIES / "cards"
LIMIT = 16e6  # bytes
VIEWS = {
    "flip": "Its answer is the mean over an image and its mirror image.\n",
    "shift": "Its answer is the mean over an image and its mirror image, which count double,\n"
    "and both moved by a 32nd of the side in two directions.\n",
}
CARD = """---
library_name: timm
pipeline_tag: image-classification
tags: [image-classification, supertokenvit]
---

# {name}

A Super Token Transformer (arXiv 2111.13156, our reconstruction) that tells apart: {classes}.

```python
import supertokenvit, timm

model = timm.create_model("{name}", pretrained=True)
```

`supertokenvit predict photo.jpg --model {name}` uses it too, and `supertokenvit train --init {name}` fine-tunes it.
Images are made {size} x {size} pixels. The weights are in half precision and are computed with in single precision.

## Accuracy

| part | images | top-1 | calibration error |
|---|---:|---:|---:|
{accuracy}

{views}Trained for {minutes:.1f} minutes ({epochs:.1f} epochs) on {cores} cores of {cpu}; the weights are those after
{best:.1f} epochs, best on validation. The recipe:

```yaml
{recipe}
```

{about}
"""


def card(run: RunFolder, name: str) -> str:
    """Writes the model card from what the run left."""
    whole = yaml.safe_load(run.recipe.read_text())
    whole["model_args"] = changed(whole["model"], whole["model_args"])
    usual = asdict(Recipe())
    recipe: dict[str, Any] = {key: value for key, value in whole.items() if value != usual[key] and key != "out"}
    for field in ("data", "init", "teacher"):
        if recipe.get(field):
            recipe[field] = Path(recipe[field]).name
    splits = json.loads(run.evaluation.read_text())
    config = json.loads((run.model / CONFIG).read_text())
    metrics = read_metrics(run.metrics)
    best = next(row for row in metrics if row["step"] == ModelCard.read(config).steps)
    machine = json.loads(run.environment.read_text())
    rows = [
        f"| {split} | {f['images']:,} | {100 * f['top1']:.2f} % | {100 * f['calibration_error']:.1f} % |"
        for split, f in splits.items()
    ]
    return CARD.format(
        name=name,
        classes=", ".join(config["label_names"]),
        size=config["pretrained_cfg"]["input_size"][-1],
        accuracy="\n".join(rows),
        views=VIEWS.get(recipe.get("tta", "none"), ""),
        minutes=metrics[-1]["minutes"],
        epochs=metrics[-1]["epoch"],
        best=best["epoch"],
        cores=machine["threads"] * machine.get("processes", 1),
        cpu=machine["cpu"],
        recipe=yaml.safe_dump(recipe, sort_keys=False).strip(),
        about=(CARDS / f"{name.partition('.')[2]}.md").read_text().strip(),
    )


def ship(run: RunFolder, name: str, weights: Path = WEIGHTS) -> Path:
    """Writes the folder NAME.TAG and returns it.

    Raises:
        SystemExit: It would be larger than what the package may hold.
    """
    folder = weights / name
    text = card(run, name)
    tensors = load_file(run.model / WEIGHTS_FILE)
    tensors = {key: t.half() if t.is_floating_point() else t for key, t in tensors.items()}
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    if size > LIMIT:
        sys.exit(
            f"{name}: {size / 1e6:.1f} MB are more than the {LIMIT / 1e6:.0f} MB that a model in the package may take"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / WEIGHTS_FILE).chmod(0o644)
    config = json.loads((run.model / CONFIG).read_text())
    made = ModelCard.read(config)
    terms = made.data_license or "see README.md, Terms of the data"
    config[CARD_KEY] = asdict(replace(made, data=Path(made.data or "").name, data_license=terms))
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    (folder / "README.md").write_text(text)
    return folder


def main(argv: Sequence[str] | None = None) -> None:
    """Ships a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("name", help="NAME.TAG of the model in the package")
    args = parser.parse_args(argv)
    if "." not in args.name:
        parser.error(f"{args.name}: a name is NAME.TAG")
    print(ship(RunFolder(args.run), args.name))


if __name__ == "__main__":
    main()
