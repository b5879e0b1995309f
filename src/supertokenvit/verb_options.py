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
ANSWERS = "File for the answers: .csv, .jsonl or .parquet; of masks and boxes a folder for pictures (predictions)"

REPORT = "File for the report: .csv or .parquet; the picture is beside it, as .png"
BULK = (
    "processes",
    "cluster",
    "resume",
    "embeddings",
)  # of predict: any of them makes it write one Parquet file in parts


def add_predict(parser: Any) -> None:
    """Adds the options of `predict` that no other verb has."""
    from .command_line import PositiveInt

    images = "Files, or folders of them; with --processes also archives, and shards as PATH-{000..010}.tar"
    parts = "Processes that answer, each with its share of the cores, into --out NAME.parquet"
    parser.add_argument("images", type=str, nargs="+", help=images)
    parser.add_argument("--model", type=str, default=None, help=f"{MODEL}, or an exported file; the best of those")
    parser.add_argument("--out", type=str, default=None, help=ANSWERS)
    parser.add_argument("--json", action="store_true", help="Print a line of JSON for each image")
    parser.add_argument("--topk", type=PositiveInt, default=5, help="Classes to name")
    parser.add_argument("--explain", type=str, default=None, help="Folder for pictures of what spoke for each answer")
    parser.add_argument("--processes", type=PositiveInt, default=None, help=parts)
    parser.add_argument("--cluster", choices=["ray"], default=None, help="Answer on all machines of a Ray cluster")
    parser.add_argument("--resume", action="store_true", help="Go on with the --out NAME.parquet of a killed command")
    parser.add_argument("--embeddings", action="store_true", help="Write what the classifier sees into it, too")


def add_labels(parser: Any) -> None:
    """Adds the options that say how labels are to be read."""
    tasks = ["classification", "segmentation", "detection"]
    names, ignored = "Names of the classes of masks, by value", "Value of masks, besides 255, that does not count"
    parser.add_argument("--task", choices=tasks, default=None, help="What the labels are; as they look")
    parser.add_argument("--classes", type=Optional[List[str]], default=None, help=names)
    parser.add_argument("--ignore", type=Optional[int], default=None, help=ignored)


def add_use(parser: Any) -> None:
    """Adds the options that say how a trained model looks at images and answers."""
    from .command_line import PositiveInt

    shown = "Boxes: least score that is shown; the one that fitted the validation images"
    parser.add_argument("--img_size", type=PositiveInt, default=None, help=SIDE)
    parser.add_argument("--resize", choices=["center", "squash", "border", "keep"], help="How; keep: in their shape")
    parser.add_argument("--tta", choices=["none", "flip", "shift"], help="Views of an image; as the training set them")
    parser.add_argument("--threshold", type=float, default=None, help=shown)
    parser.add_argument("--precision", choices=["fp32", "bf16", "auto"], default="fp32", help="auto: bf16 if faster")
    parser.add_argument("--batch_size", type=PositiveInt, default=64, help="Images at once")
    parser.add_argument("--device", type=str, default=None, help="cpu, cuda, mps")


def add_evaluate(parser: Any) -> None:
    """Adds the options of `evaluate`."""
    from .command_line import NonNegativeInt

    parser.add_argument("--model", type=str, required=True, help=MODEL)
    parser.add_argument("--data", type=str, default=None, help="Images, as in training; those of the run")
    parser.add_argument("--split", **SPLIT)
    add_use(parser)
    parser.add_argument("--sizes", type=str, default=None, help=SIZES)
    parser.add_argument("--keep_size", type=str, default=None, help=KEEP)
    parser.add_argument("--skip_damaged", type=bool, default=False, help="Leave damaged images out")
    parser.add_argument("--workers", type=NonNegativeInt, default=0, help="Processes that decode")
    parser.add_argument("--out", type=str, default=None, help="Folder for the figures; by default the run folder")


def add_explain(parser: Any) -> None:
    """Adds the options of `explain`."""
    from .command_line import PositiveInt

    parser.add_argument("images", type=str, nargs="+", help="Files, or folders of them")
    parser.add_argument("--model", type=str, default=None, help=f"{MODEL}; the best of those")
    parser.add_argument("--class", dest="target", type=str, default=None, help="Class to explain; the likeliest")
    parser.add_argument("--method", **METHOD)
    parser.add_argument("--topk", type=PositiveInt, default=1, help="Classes to explain of each image")
    parser.add_argument("--windows", action="store_true", help="Draw the windows with the share of each")
    parser.add_argument("--talk", action="store_true", help="Draw which windows the most important one listened to")
    parser.add_argument("--json", action="store_true", help="Print a line of JSON for each explanation")
    parser.add_argument("--out", type=str, default="explanations", help="Folder for overlays and maps")
    parser.add_argument("--img_size", type=PositiveInt, default=None, help=SIDE)
    parser.add_argument("--device", type=str, default=None, help="cpu, cuda, mps")


def add_neighbours(parser: Any) -> None:
    """Adds the options of `neighbours`."""
    from .command_line import PositiveInt

    images = "Where the images are now, as they were named for predict; their paths in the file"
    parser.add_argument("answers", type=str, help="Parquet file of predict --embeddings")
    parser.add_argument("--images", type=str, nargs="+", default=None, help=images)
    parser.add_argument("--count", type=PositiveInt, default=5, help="Nearest others of each image")
    parser.add_argument("--out", type=str, default="neighbours.csv", help=REPORT)


def add_suspects(parser: Any) -> None:
    """Adds the options of `suspects`."""
    from .command_line import PositiveInt

    split = "Split of it; val, or else test, or else all; a model may know wrong labels of train by heart"
    parser.add_argument("--model", type=str, required=True, help=f"{MODEL}, or an exported file")
    parser.add_argument("--data", type=str, default=None, help="Images, as in training; those of the run")
    parser.add_argument("--split", choices=["val", "test", "train"], default=None, help=split)
    parser.add_argument("--batch_size", type=PositiveInt, default=64, help="Images at once")
    parser.add_argument("--device", type=str, default=None, help="cpu, cuda, mps")
    parser.add_argument("--out", type=str, default="suspects.csv", help=REPORT)
