"""The command `supertokenvit`: each verb parses its options and calls one function of a room."""

import difflib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from . import __version__
from .verb_options import ANSWERS, KEEP, METHOD, MODEL, RIVALS, SIDE, SIZES, SPLIT, add_labels, add_use


def train(argv: Sequence[str]) -> None:
    """Trains, or goes on with a run."""
    from .training.recipe import GROUPS, Recipe, changes_of

    parser = parser_of("train", usage="%(prog)s --data DATA [options]")
    parser.add_argument("--recipe", action="config", help="YAML file with values of these options")
    parser.add_argument("--resume", default=None, help="Run folder to go on with")
    parser.add_class_arguments(Recipe, fail_untyped=True)
    parser.put_under_headings({"most used": GROUPS["most used"], "begin or go on": ("recipe", "resume"), **GROUPS})
    parser.check_file_of("--recipe", argv)
    given = parser.parse_args(list(argv)).as_dict()
    given.pop("recipe", None)
    folder = given.pop("resume")
    if folder is None and not given["data"]:
        parser.error("--data is missing: a folder of images, or digits to try it")
    changed = {} if folder is None else changes_of(given, parser.get_defaults().as_dict())
    from .machine import keep_freed_memory
    from .training.run import resume, train_recipe

    keep_freed_memory()
    train_recipe(Recipe(**given)) if folder is None else resume(folder, **changed)


def evaluate(argv: Sequence[str]) -> None:
    """Measures a trained model on labelled images."""
    from .command_line import NonNegativeInt

    parser = parser_of("evaluate")
    parser.add_argument("--model", type=str, required=True, help=MODEL)
    parser.add_argument("--data", type=str, default=None, help="Images, as in training; those of the run")
    parser.add_argument("--split", **SPLIT)
    add_use(parser)
    parser.add_argument("--sizes", type=str, default=None, help=SIZES)
    parser.add_argument("--keep_size", type=str, default=None, help=KEEP)
    parser.add_argument("--skip_damaged", type=bool, default=False, help="Leave damaged images out")
    parser.add_argument("--workers", type=NonNegativeInt, default=0, help="Processes that decode")
    parser.add_argument("--out", type=str, default=None, help="Folder for the figures; by default the run folder")
    given = parser.parse_args(list(argv)).as_dict()
    from .evaluation_sizes import evaluate_sizes_and_write

    evaluate_sizes_and_write(**given)


def predict(argv: Sequence[str]) -> None:
    """Says what is on images."""
    from .command_line import PositiveInt

    parser = parser_of("predict")
    parser.add_argument("images", type=str, nargs="+", help="Files, or folders of them")
    parser.add_argument("--model", type=str, default=None, help=f"{MODEL}; the best of those")
    parser.add_argument("--out", type=str, default=None, help=ANSWERS)
    parser.add_argument("--json", action="store_true", help="Print a line of JSON for each image")
    parser.add_argument("--topk", type=PositiveInt, default=5, help="Classes to name")
    parser.add_argument("--explain", type=str, default=None, help="Folder for pictures of what spoke for each answer")
    add_use(parser)
    given = parser.parse_args(list(argv)).as_dict()
    from .answers import predict_and_print

    predict_and_print(given.pop("images"), given.pop("model"), as_json=given.pop("json"), **given)


def explain(argv: Sequence[str]) -> None:
    """Shows what in images spoke for an answer."""
    from .command_line import PositiveInt

    parser = parser_of("explain")
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
    given = parser.parse_args(list(argv)).as_dict()
    from .explaining.command import explain_and_write

    explain_and_write(given.pop("images"), given.pop("model"), as_json=given.pop("json"), **given)


def export(argv: Sequence[str]) -> None:
    """Writes a trained model as one file for other engines, or as a page."""
    from .exporting.options import ExportOptions

    parser = parser_of("export")
    parser.add_argument("model", type=str, help=MODEL)
    parser.add_class_arguments(ExportOptions, fail_untyped=True)
    given = parser.parse_args(list(argv)).as_dict()
    from .exporting.export import export

    print(export(given.pop("model"), print, **given))


def check_data(argv: Sequence[str]) -> None:
    """Decodes a data set and names what is wrong with it."""
    from .command_line import PositiveInt

    parser = parser_of("check-data")
    parser.add_argument("data", type=str, help="Images, as for training")
    add_labels(parser)
    parser.add_argument("--workers", type=PositiveInt, default=None, help="Decoders at once; one for each core")
    given = parser.parse_args(list(argv)).as_dict()
    from .data.checking import check_and_print

    check_and_print(**given)


def benchmark(argv: Sequence[str]) -> None:
    """Measures how fast models are, side by side."""
    from .benchmarking.options import BenchmarkOptions

    parser = parser_of("benchmark")
    parser.add_argument("models", type=str, nargs="+", help=RIVALS)
    parser.add_class_arguments(BenchmarkOptions, fail_untyped=True)
    given = parser.parse_args(list(argv)).as_dict()
    from .benchmarking.command import run_and_write

    run_and_write(given.pop("models"), BenchmarkOptions(**given))


def models(argv: Sequence[str]) -> None:
    """Lists the variants."""
    parser_of("models").parse_args(list(argv))
    from .model.summary import print_summaries

    print_summaries()


VERBS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "train": (train, "train a model on your images"),
    "evaluate": (evaluate, "measure a trained model on labelled images"),
    "predict": (predict, "say what is on images"),
    "explain": (explain, "show what in images spoke for an answer"),
    "export": (export, "write a trained model as one file for other engines, or as a page, and check it"),
    "check-data": (check_data, "decode a data set and name what is wrong with it"),
    "benchmark": (benchmark, "measure how fast models are, side by side"),
    "models": (models, "list the variants"),
}


def parser_of(verb: str, **options: Any) -> Any:
    """Makes the parser of a verb, whose line in VERBS is its description."""
    from .command_line import Parser

    text = VERBS[verb][1]
    return Parser(prog=f"supertokenvit {verb}", description=f"{text[0].upper()}{text[1:]}.", **options)


def usage() -> str:
    """Returns the overview that `supertokenvit --help` prints."""
    lines = ["usage: supertokenvit VERB [options]", ""]
    lines += [f"  {verb:<12} {text}" for verb, (_, text) in VERBS.items()]
    lines += ["", "supertokenvit VERB --help lists a verb's options; --debug shows where an error came from."]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return
    if words[0] == "--version":
        print(__version__)
        return
    from .command_line import USAGE_ERROR, accept_every_name, fail, run

    accept_every_name()
    if words[0] not in VERBS:
        near = difflib.get_close_matches(words[0], VERBS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        fail(f"no verb {words[0]!r}{hint} (supertokenvit --help)", USAGE_ERROR)
    run(VERBS[words[0]][0], words, debug)


if __name__ == "__main__":
    main()
