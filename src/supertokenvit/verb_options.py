"""Options that several verbs of the command have, and their help."""

from typing import Any

# with a type beside them, jsonargparse's help would show the function that checks the choices
SPLIT: dict[str, Any] = dict(choices=["val", "test", "train"], help="Split of it; test, or else val, or else all")
TTA: dict[str, Any] = dict(choices=["none", "flip", "shift"], help="Views of an image; as the training set them")
PRECISION: dict[str, Any] = dict(
    choices=["fp32", "bf16", "auto"], default="fp32", help="Precision of the arithmetic; auto: bf16 where it is faster"
)
SIDE = "Side of the images that the model sees, in pixels; that of its training"
METHOD: dict[str, Any] = dict(
    choices=["composed", "gradient", "attention", "integrated", "occlusion", "gradcam"],
    default=None,
    help="How; composed, and gradcam for other families",
)
RIVALS = "timm names, run folders, .onnx or .xml files; NAME:KEY=VALUE,... for one with settings of its own: "
RIVALS += "engine, dtype, channels_last, fused, reparam, by_convolution, or an argument of the model"
MODEL = "Run folder, or a model that comes with the package"
ANSWERS = "File for the answers: .csv, .jsonl or .parquet; of masks and boxes a folder for pictures (predictions)"
THRESHOLD: dict[str, Any] = dict(
    type=float, default=None, help="Boxes: least score that is shown; the one that fitted the validation images"
)
