"""The command `supertokenvit`: parse, call one function, print."""

import difflib
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, set_parsing_settings
from jsonargparse.typing import NonNegativeInt, PositiveInt
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from . import __version__
from .errors import UserError

USAGE_ERROR, FAILED = 2, 1
NEEDS_LESS = {
    "train": "a smaller --batch_size needs less, parts of one by --accumulate too, and --grad_checkpointing true",
    "evaluate": "a smaller --batch_size needs less",
    "predict": "a smaller --img_size needs less",
}
SIDE = "Side of the images that the model sees, in pixels; that of its training"


class Parser(ArgumentParser):
    """jsonargparse's, with errors of one line that name the nearest option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints the message and ends with code 2."""
        text = plain(" ".join(message.split()))
        known = [a.dest for a in self._actions if a.dest != "help"]
        for word in text.replace("'", " ").replace('"', " ").replace("=", " ").split():
            name = word.removeprefix("--")
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            if (
                near
                and name not in known
                and ("not accepted" in text or "unrecognized" in text or "not expected" in text)
            ):
                text += f"; did you mean {near[0]}?"
                break
        fail(f"{text} (supertokenvit {self.prog.split()[-1]} --help lists the options)", USAGE_ERROR)


KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}
KINDS |= {"dict": "names with values, as {'name': 1}", "list": "a list, as [1, 2]"}


def plain(text: str) -> str:
    """jsonargparse's message about a value of the wrong kind, in words of the command line; others as they are."""
    text = re.sub(r'^Parser key "([\w.]+)": ', r"--\1: ", text)
    text = re.sub(r"^(--\w+): Not of type \w+: (\S+) does not conform to restriction v", r"\1 \2: must be ", text)
    text = re.sub(r"^(--\w+): Not of type \w+: invalid literal .*: '(.*?)'", r"\1 \2: must be a whole number", text)
    found = re.fullmatch(r"--([\w.]+): (.*Expected .*?)\.? (?:Given value:|Got value:) ?(.*)", text)
    if found is None:
        return text
    key, expected, value = found.groups()
    kinds = re.findall(r"Expected an? (?:<class '(\w+)'>|typing\.Literal\[(.*?)\])", expected)
    named = [KINDS.get(kind, kind) or re.sub("'(.*?)',? ?", r"\1 or ", choices)[:-4] for kind, choices in kinds]
    return f"--{key} {value}: must be {' or '.join(dict.fromkeys(named))}"


def fail(message: str, code: int) -> NoReturn:
    """Ends the command with one line on standard error."""
    print(f"supertokenvit: {message}", file=sys.stderr)
    sys.exit(code)


def train_parser() -> Parser:
    """Options of `supertokenvit train`: the fields of Recipe, and how to begin."""
    from .training.recipe import Recipe

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = Parser(prog="supertokenvit train", description="Train a model on your images.")
    parser.add_argument("--recipe", action="config", help="YAML file of the options below")
    parser.add_argument("--resume", default=None, help="Run folder to go on with")
    parser.add_class_arguments(Recipe, fail_untyped=True)
    return parser


RESUMABLE = ("workers", "cache", "device", "tensorboard", "skip_damaged")


def run_train(argv: Sequence[str]) -> None:
    """Trains, or goes on with a run."""
    from .training.loop import resume, train
    from .training.recipe import Recipe

    parser = train_parser()
    given = parser.parse_args(list(argv)).as_dict()
    given.pop("recipe", None)
    folder = given.pop("resume")
    console = Console()
    if folder is None:
        if not given["data"]:
            parser.error("--data is missing: a folder of images, or digits to try it")
        train(Recipe(**given), console)
        return
    defaults = parser.get_defaults().as_dict()
    changed = {f.name: given[f.name] for f in fields(Recipe) if given[f.name] != defaults[f.name]}
    fixed = sorted(set(changed) - set(RESUMABLE))
    if fixed:
        parser.error(f"--resume repeats the run's own recipe: {fixed[0]} cannot change ({', '.join(RESUMABLE)} can)")
    resume(folder, console, **changed)


def run_evaluate(argv: Sequence[str]) -> None:
    """Measures a trained model on labelled images."""
    from .evaluation import evaluate, open_part
    from .machine import best_device
    from .model.family import WEIGHTS
    from .prediction import Predictor
    from .run_folder import load_model, write_json
    from .training.report import draw_confusion

    parser = Parser(prog="supertokenvit evaluate", description="Measure a trained model on labelled images.")
    parser.add_argument("--model", type=str, required=True, help="Run folder, or a model that comes with the package")
    parser.add_argument("--data", type=str, default=None, help="Images, as in training; those of the run")
    # with a type beside them, jsonargparse's help would show the function that checks the choices
    parser.add_argument("--split", choices=["val", "test", "train"], help="Part of it; test, or else val, or else all")
    parser.add_argument("--tta", choices=["none", "flip", "shift"], help="Views of an image; as the model does")
    parser.add_argument("--img_size", type=PositiveInt, default=None, help=SIDE)
    parser.add_argument("--skip_damaged", type=bool, default=False, help="Leave damaged images out")
    parser.add_argument("--batch_size", type=PositiveInt, default=64, help="Images at once")
    parser.add_argument("--workers", type=NonNegativeInt, default=0, help="Processes that decode")
    parser.add_argument("--device", type=str, default=None, help="cpu, cuda, mps")
    parser.add_argument(
        "--out", type=str, default=None, help="Folder for evaluation JSON and picture; by default the run folder"
    )
    args = parser.parse_args(list(argv))
    trained = load_model(args.model, args.img_size)
    trained.about |= {} if args.tta is None else {"tta": args.tta}
    source, split = open_part(args.data, args.split, trained.about)
    result = evaluate(
        Predictor(trained, best_device(args.device)),
        source,
        batch_size=args.batch_size,
        workers=args.workers,
        skip_damaged=args.skip_damaged,
    )
    print_evaluation(result, f"{args.data or trained.about['data']} ({split})", trained.multi_label)
    shipped = trained.path.parent == WEIGHTS
    out = Path(args.out) if args.out else Path("runs") / trained.path.name if shipped else trained.path.parent
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"evaluation-{split}.json", result.as_dict())
    if result.confusion:
        draw_confusion(out / f"confusion-{split}.png", result.confusion, result.classes)
    print(f"written: {out / f'evaluation-{split}.json'}")


def print_evaluation(result, title: str, multi_label: bool) -> None:
    """Tables of the figures, per-class accuracy and, for up to 12 classes, the confusion matrix."""
    console = Console()
    name = "mean average precision" if multi_label else "top-1"
    line = f"{title}: {result.images:,} images, {name} {100 * result.top1:.2f} %"
    line += f", top-5 {100 * result.top5:.2f} %" if result.top5 is not None else ""
    line += f", F1 {100 * result.f1:.2f} %" if result.f1 is not None else ""
    if result.calibration_error is not None:
        line += f", expected calibration error {100 * result.calibration_error:.2f} %"
    console.print(line + f", loss {result.loss:.4f}", highlight=False, markup=False)
    for text in result.left_out:
        console.print(f"left out: {text}", highlight=False, markup=False)
    if result.missing_classes:
        console.print(f"without images here: {', '.join(result.missing_classes)}", highlight=False, markup=False)
    wide = bool(result.confusion) and len(result.classes) <= 12
    table = Table(
        "class", "%", *(map(escape, result.classes) if wide else []), title="rows: true class" if wide else None
    )
    for i, label in enumerate(result.classes):
        share = result.per_class[label]
        counts = [str(n) for n in result.confusion[i]] if wide else []
        table.add_row(escape(label), "-" if share is None else f"{100 * share:.1f}", *counts)
    console.print(table)


def run_predict(argv: Sequence[str]) -> None:
    """Says what is on images."""
    from .machine import best_device
    from .prediction import Predictor, find_images
    from .run_folder import load_model, shipped_model

    parser = Parser(prog="supertokenvit predict", description="Say what is on images.")
    parser.add_argument("images", type=str, nargs="+", help="Files, or folders of them")
    parser.add_argument(
        "--model", type=str, default=None, help="Run folder, or a model that comes with the package; the best of those"
    )
    parser.add_argument("--json", action="store_true", help="A line of JSON for each image")
    parser.add_argument("--img_size", type=PositiveInt, default=None, help=SIDE)
    parser.add_argument("--topk", type=int, default=5, help="Classes to name")
    parser.add_argument("--device", type=str, default=None, help="cpu, cuda, mps")
    args = parser.parse_args(list(argv))
    if args.topk < 1:
        parser.error(f"--topk {args.topk}: must be at least 1")
    trained = load_model(args.model or shipped_model(), args.img_size)
    predictor = Predictor(trained, best_device(args.device))
    bad = 0
    console = Console()
    if args.model is None:
        known = f"{trained.path.name} tells apart, and nothing else: {', '.join(trained.classes)}"
        Console(stderr=True).print(known, highlight=False, soft_wrap=True)
    table = Table(Column("image", overflow="fold"), "class", "probability", "then")
    for row in predictor.predict(find_images(args.images), topk=args.topk):
        bad += row.error is not None
        if args.json:
            print(json.dumps(asdict(row)))
        elif row.error is None:
            rest = ", ".join(
                f"{label} {100 * p:.1f} %" for label, p in zip(row.labels[1:], row.probabilities[1:], strict=True)
            )
            table.add_row(escape(row.file), escape(row.labels[0]), f"{100 * row.probabilities[0]:.1f} %", escape(rest))
        else:
            print(f"supertokenvit: {row.file}: {row.error}", file=sys.stderr)
    if not args.json and table.row_count:
        console.print(table)
    if bad:
        fail(f"{bad} image{'s' * (bad > 1)} could not be read (named above)", FAILED)


def run_check_data(argv: Sequence[str]) -> None:
    """Decodes a data set and names what is wrong with it."""
    from .data.checking import check_data

    parser = Parser(prog="supertokenvit check-data", description="Decode a data set and name what is wrong with it.")
    parser.add_argument("data", type=str, help="Images, as for training")
    parser.add_argument("--workers", type=PositiveInt, default=None, help="Decoders at once; one for each core")
    args = parser.parse_args(list(argv))
    report = check_data(args.data, workers=args.workers)
    if report.fatal:
        fail(f"training on this would fail: {'; '.join(report.fatal)}", FAILED)


def run_benchmark(argv: Sequence[str]) -> None:
    """Measures how fast models are, side by side."""
    from .benchmarking.plan import Plan
    from .benchmarking.report import draw_sizes, draw_throughput, make_table, read_rows, write_rows
    from .benchmarking.table import Row, benchmark, find
    from .run_folder import new_run_folder

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = Parser(prog="supertokenvit benchmark", description="Measure how fast models are, side by side.")
    parser.add_argument(
        "models",
        type=str,
        nargs="+",
        help="timm names, run folders, .onnx or .xml files; NAME:KEY=VALUE,... for one with settings of its own: "
        "engine, dtype, channels_last, fused, reparam, or an argument of the model",
    )
    parser.add_class_arguments(Plan, fail_untyped=True)
    given = parser.parse_args(list(argv)).as_dict()
    models = given.pop("models")
    plan = Plan(**given)
    console = Console()
    rivals = find(models, plan)
    out = new_run_folder(plan.out, "benchmark")
    rows: list[Row] = []
    for part in benchmark(rivals, plan, console):
        rows += part
        console.print(make_table(part, console.width))
        for row in part:
            if row.error:
                print(f"supertokenvit: {row.contestant.name()} ({row.contestant.engine}): {row.error}", file=sys.stderr)
        write_rows(out / "rows.csv", rows)
    draw_throughput(out / "throughput.png", read_rows(out / "rows.csv"))
    if len(plan.img_size) > 1:
        draw_sizes(out / "sizes.png", read_rows(out / "rows.csv"))
    print(f"written: {out}")
    if any(row.error for row in rows):
        fail("not every model could be measured (named above)", FAILED)


def run_models(argv: Sequence[str]) -> None:
    """Lists the variants."""
    from .model.summary import summaries

    Parser(prog="supertokenvit models", description="List the variants.").parse_args(list(argv))
    table = Table(
        Column("model", no_wrap=True), "params", "GMACs", "image", "stride", "window", "width", "layers L/G/K"
    )
    for row in summaries():
        depth = f"{row['local_layers']}/{row['global_layers']}/{row['class_layers']}"
        table.add_row(
            row["name"],
            f"{row['parameters'] / 1e6:.2f}M",
            f"{row['macs'] / 1e9:.3f}",
            f"{row['img_size']} px",
            str(row["stride"]),
            str(row["window"]),
            str(row["width"]),
            depth,
        )
    Console().print(table)


VERBS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "train": (run_train, "train a model on your images"),
    "evaluate": (run_evaluate, "measure a trained model on labelled images"),
    "predict": (run_predict, "say what is on images"),
    "check-data": (run_check_data, "decode a data set and name what is wrong with it"),
    "benchmark": (run_benchmark, "measure how fast models are, side by side"),
    "models": (run_models, "list the variants"),
}


def usage() -> str:
    """The overview that `supertokenvit --help` prints."""
    lines = ["usage: supertokenvit VERB [options]", ""]
    lines += [f"  {verb:<12} {text}" for verb, (_, text) in VERBS.items()]
    lines += ["", "supertokenvit VERB --help lists a verb's options; --debug shows where an error came from."]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    words = [_option(word) for word in (sys.argv[1:] if argv is None else argv)]
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return
    if words[0] == "--version":
        print(__version__)
        return
    if words[0] not in VERBS:
        near = difflib.get_close_matches(words[0], VERBS, n=1)
        fail(f"no verb {words[0]!r}{f'; did you mean {near[0]}?' if near else ''} (supertokenvit --help)", USAGE_ERROR)
    from .machine import keep_freed_memory

    keep_freed_memory()
    try:
        VERBS[words[0]][0](words[1:])
    except (UserError, OSError) as error:
        if debug:
            raise
        text = str(error) or type(error).__name__
        if "Original Traceback" in text:  # of a worker
            text = text.strip().splitlines()[-1]
        fail(text, getattr(error, "exit_code", FAILED))
    except RuntimeError as error:
        if debug or not any(words in str(error) for words in ("out of memory", "not enough memory", "can't allocate")):
            raise
        fail(f"{str(error).splitlines()[0]}; {NEEDS_LESS.get(words[0], 'a smaller model needs less')}", FAILED)
    except KeyboardInterrupt:
        fail("interrupted", 130)


def _option(word: str) -> str:
    """--img-size and --img_size are the same option."""
    if not word.startswith("--"):
        return word
    name, *value = word.split("=", 1)
    return "=".join(["--" + name[2:].replace("-", "_"), *value])


if __name__ == "__main__":
    main()
