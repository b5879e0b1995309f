"""Options that several verbs of the command have, and their help."""

from typing import Any, List, Optional

# with a type beside them, jsonargparse's help would show the function that checks the choices
SPLIT: dict[str, Any] = dict(choices=["val", "test", "train"], help="Split of it; test, or else val, or else all")
SIDE = "Side of the images that the model sees, in pixels; that of its training"
SIZES = "Sides, as 160,192,224: accuracy, speed and operations at each"
KEEP = "Use the model at this of the sizes from now on; best: the most accurate on the validation images"
METHOD: dict[str, Any] = dict(
    choices=["composed", "gradient", "attention", "integrated", "occlusion", "gradcam"],
    default=None,
    help="How; composed, and gradcam for other families",
)
RIVALS = "timm names, run folders, .onnx or .xml files; NAME:KEY=VALUE,... for one with settings of its own: "
RIVALS += "engine, dtype, channels_last, fused, reparam, by_convolution, or an argument of the model"
MODEL = "Run folder, or a model that comes with the package"
REPORT = "File for the report: .csv or .parquet; the picture is beside it, as .png"
ANSWERS = "File for the answers: .csv, .jsonl or .parquet; of masks and boxes a folder for pictures (predictions)"


def add_labels(parser: Any) -> None:
    """Adds the options that say how labels are to be read."""
    tasks = ["classification", "segmentation", "detection"]
    names, ignored = "Names of the classes of masks, by value", "Value of masks, besides 255, that does not count"
    parser.add_argument("--task", choices=tasks, default=None, help="What the labels are; as they look")
    parser.add_argument("--classes", type=Optional[List[str]], default=None, help=names)
    parser.add_argument("--ignore", type=Optional[int], default=None, help=ignored)


def add_use(parser: Any) -> None:
    """Adds the options that say how a trained model looks at images and answers."""
    from ..command_line import PositiveInt

    shown = "Boxes: least score that is shown; the one that fitted the validation images"
    parser.add_argument("--img_size", type=PositiveInt, default=None, help=SIDE)
    parser.add_argument("--resize", choices=["center", "squash", "border", "keep"], help="How; keep: in their shape")
    parser.add_argument("--tta", choices=["none", "flip", "shift"], help="Views of an image; as the training set them")
    parser.add_argument("--threshold", type=float, default=None, help=shown)
    parser.add_argument("--precision", choices=["fp32", "bf16", "auto"], default="fp32", help="auto: bf16 if faster")
    parser.add_argument("--batch_size", type=PositiveInt, default=64, help="Images at once")
    parser.add_argument("--device", type=str, default=None, help="cpu, cuda, mps")
