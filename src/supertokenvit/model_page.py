"""The page beside a trained model, README.md: what it is, how good, how to use it; the Hugging Face Hub shows it."""

from collections.abc import Mapping
from typing import Any

PIPELINES = {
    "classification": "image-classification",
    "multi-label": "image-classification",
    "segmentation": "image-segmentation",
    "detection": "object-detection",
}
ANSWERS = {
    "classification": "one label for each image",
    "multi-label": "any number of labels for each image",
    "segmentation": "a class for each pixel",
    "detection": "boxes with a class each",
}
SCORES = {
    "classification": "accuracy",
    "multi-label": "mean average precision",
    "segmentation": "mean IoU",
    "detection": "mean average precision (COCO)",
}
VIEWS = {
    "none": "once",
    "flip": "twice, mirrored the second time, and the answer is the mean",
    "shift": "six times, mirrored and moved a little, and the answer is the mean",
}
RESIZED = {
    "center": "the shorter side gets that length and the middle is cut out",
    "squash": "both sides get that length",
    "border": "the longer side gets that length and a border is added",
    "keep": "the shorter side gets that length and nothing is cut off",
}
MOST = 100  # classes that are named


def page(
    name: str,
    architecture: str,
    parameters: int,
    classes: list[str],
    data_config: Mapping[str, Any],
    card: Mapping[str, Any],
) -> str:
    """Writes the page.

    Args:
        name: Of the model.
        architecture: timm's name of the network.
        parameters: Its parameters.
        classes: Names in the order of the answers.
        data_config: timm's description of the preprocessing.
        card: Fields of model_folder.ModelCard.
    """
    task, size = card["task"], data_config["input_size"][-1]
    named = ", ".join(classes[:MOST]) + (f" and {len(classes) - MOST:,} more" if len(classes) > MOST else "")
    scores = "".join(f"| {split} | {100 * score:.2f} % |\n" for split, score in card["scores"].items())
    measured = f"| images | {SCORES[task]} |\n|---|---:|\n{scores}" if scores else "Nobody measured it yet.\n"
    rule = f"The validation images: {card['split_rule']}.\n" if card["split_rule"] else ""
    shown = f"Images are seen whole, the longer side {size} px."
    if task in ("classification", "multi-label"):
        how = RESIZED[data_config.get("crop_mode", "center")]  # without the word timm cuts the centre out
        shown = f"Images get the size {size} px: {how}. Each is looked at {VIEWS[card['tta']]}."
    fitted = ""
    if card["temperature"] != 1.0:
        fitted = (
            "Its probabilities were fitted to the validation images, so that they are neither too sure nor too unsure."
        )
    return f"""---
library_name: timm
pipeline_tag: {PIPELINES[task]}
tags: [{PIPELINES[task]}, supertokenvit]
---

# {name}

A `{architecture}` with {parameters / 1e6:.2f} million parameters that gives {ANSWERS[task]}. It knows {
        len(classes)
    } classes and nothing
else: {named}.

## Use

```python
import supertokenvit

predictor = supertokenvit.load("PATH_OF_THIS_FOLDER")
print(predictor("photo.jpg")[0])
```

`supertokenvit predict photo.jpg --model PATH_OF_THIS_FOLDER` does the same. On the Hub its name is `hf-hub:OWNER/NAME`.
{shown}

## How good it is

{measured}
{rule}{fitted}

## Data

Trained on: {card["data"] or "not written down"}. Terms of the data: {card["data_license"] or "not written down"}.

## What to mind

It answers with one of its classes whatever an image shows, and knows images like those it was trained on. Measure it on
your own images before anything depends on it: `supertokenvit evaluate --model PATH_OF_THIS_FOLDER --data YOUR_IMAGES`.
"""
