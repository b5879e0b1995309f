"""The page beside an exported file: what it takes, what it gives, and how to ask it."""

from collections.abc import Sequence
from typing import Any

from .parity import Check

RUNTIMES = {
    ".onnx": """from pathlib import Path

import numpy
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
{reading}
probabilities = session.run(["probabilities"], {{"{name}": images}})[0][0]""",
    ".xml": """from pathlib import Path

import numpy
import openvino
from PIL import Image, ImageOps

model = openvino.Core().compile_model("{file}", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
{reading}
probabilities = model(images)["probabilities"][0]""",
}
READING = {
    "photo": """photograph = ImageOps.exif_transpose(Image.open("photograph.jpg")).convert("RGB")
images = numpy.asarray(photograph)[None]""",
    "tensor": """photograph = ImageOps.exif_transpose(Image.open("photograph.jpg")).convert("RGB")
square = photograph.resize(({side}, {side}))  # simplified: see "Preprocessing"
pixels = numpy.asarray(square, dtype="float32") / 255
pixels = (pixels - numpy.float32({mean})) / numpy.float32({std})
images = pixels.transpose(2, 0, 1)[None]""",
}
TAKES = {
    "photo": """`photographs`, uint8 [batch, height, width, 3]: RGB photographs of any size, those of one batch of one
size. The graph resizes them as the training did, normalises them, looks at the views and makes probabilities. It does
not know EXIF: rotate a photograph as its EXIF says before, as the lines below do.""",
    "tensor": """`images`, float32 [batch, 3, height, width]: RGB images that are resized and normalised already. The
graph looks at the views and makes probabilities.""",
}


def readme(about: dict[str, Any], file: str, checks: Sequence[Check]) -> str:
    """Writes the page.

    Args:
        about: From graph.about_of.
        file: Name of the exported file.
        checks: That it passed.
    """
    config, photo = about["preprocessing"], about["input"] == "photo"
    reading = READING[about["input"]].format(side=about["pixels"], mean=list(config["mean"]), std=list(config["std"]))
    name = "photographs" if photo else "images"
    suffix = file[file.rindex(".") :]
    code = RUNTIMES[suffix].format(file=file, reading=reading, name=name)
    gives = "`probabilities`, float32 [batch, classes], in the order of labels.txt"
    if "embedding" in about["outputs"]:
        gives += "; `embedding`, float32 [batch, features]: what the classifier sees"
    mode = config["crop_mode"]
    return f"""# {about["name"]}

A trained model for {about["task"]} with {len(about["classes"])} classes, as one file: `{file}`{
        " with `model.bin`" if suffix == ".xml" else ""
    }.

**It takes** {TAKES[about["input"]]}

**It gives** {gives}.

**License of the data it was trained on:** {about["data_license"] or "nobody wrote one down"}.

```python
{code}
label = Path("labels.txt").read_text(encoding="utf-8").splitlines()[int(probabilities.argmax())]
```

or `supertokenvit predict photograph.jpg --model {file}`.

## Preprocessing

Side {about["pixels"]} px, resized by "{mode}" (crop_pct {config["crop_pct"]:g}) with {config["interpolation"]}
interpolation, mean {list(config["mean"])}, standard deviation {list(config["std"])} of values from 0 to 1; views:
{about["card"]["tta"]}. {"All of this is in the file." if photo else "All but the views is left to the caller."}

## What was checked

The file was run in its own engine beside the model that it comes from:

{chr(10).join(f"- {check.line()}" for check in checks)}
"""
