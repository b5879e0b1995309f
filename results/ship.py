"""Puts the model of a run into the package, as weights in half precision with a model card.

python results/ship.py RUN NAME.TAG

The card's words on the data are those of results/cards/TAG.md; its figures are those of the run.
"""

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import yaml
from safetensors.torch import load_file, save_file

from supertokenvit.model.summary import changed
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.report import read_metrics

HERE = Path(__file__).parent
WEIGHTS = HERE.parent / "src" / "supertokenvit" / "weights"
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


def card(run: Path, name: str) -> str:
    """The model card, from what the run left."""
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["model_args"] = changed(recipe["model"], recipe["model_args"])
    usual = asdict(Recipe())
    recipe = {key: value for key, value in recipe.items() if value != usual[key] and key != "out"}
    for field in ("data", "init", "teacher"):
        if recipe.get(field):
            recipe[field] = Path(recipe[field]).name
    parts = json.loads((run / "evaluation.json").read_text())
    config = json.loads((run / "model" / "config.json").read_text())
    metrics = read_metrics(run / "metrics.csv")
    best = next(row for row in metrics if row["step"] == config["supertokenvit"]["steps"])
    machine = json.loads((run / "environment.json").read_text())
    rows = [
        f"| {part} | {f['images']:,} | {100 * f['top1']:.2f} % | {100 * f['calibration_error']:.1f} % |"
        for part, f in parts.items()
    ]
    return CARD.format(
        name=name,
        classes=", ".join(config["label_names"]),
        size=config["pretrained_cfg"]["input_size"][-1],
        accuracy="\n".join(rows),
        views=VIEWS.get(recipe.get("tta"), ""),
        minutes=metrics[-1]["minutes"],
        epochs=metrics[-1]["epoch"],
        best=best["epoch"],
        cores=machine["threads"] * machine.get("processes", 1),
        cpu=machine["cpu"],
        recipe=yaml.safe_dump(recipe, sort_keys=False).strip(),
        about=(HERE / "cards" / f"{name.partition('.')[2]}.md").read_text().strip(),
    )


def ship(run: Path, name: str, weights: Path = WEIGHTS) -> Path:
    """Writes the folder NAME.TAG and returns it.

    Raises:
        SystemExit: It would be larger than what the package may hold.
    """
    folder = weights / name
    text = card(run, name)
    tensors = load_file(run / "model" / "model.safetensors")
    tensors = {key: t.half() if t.is_floating_point() else t for key, t in tensors.items()}
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    if size > LIMIT:
        sys.exit(
            f"{name}: {size / 1e6:.1f} MB are more than the {LIMIT / 1e6:.0f} MB that a model in the package may take"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    config = json.loads((run / "model" / "config.json").read_text())
    config["supertokenvit"]["data"] = Path(config["supertokenvit"]["data"]).name
    config["supertokenvit"]["data_license"] = (
        config["supertokenvit"]["data_license"] or "see README.md, Terms of the data"
    )
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "README.md").write_text(text)
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 3 or "." not in sys.argv[2]:
        sys.exit("usage: python results/ship.py RUN NAME.TAG")
    print(ship(Path(sys.argv[1]), sys.argv[2]))
