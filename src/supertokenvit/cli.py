"""The command `supertokenvit`: each verb parses its options and calls one function of a room."""

import difflib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from . import __version__, verb_options


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
    parser = parser_of("evaluate")
    verb_options.add_evaluate(parser)
    given = parser.parse_args(list(argv)).as_dict()
    from .evaluation_sizes import evaluate_sizes_and_write

    evaluate_sizes_and_write(**given)


def predict(argv: Sequence[str]) -> None:
    """Says what is on images."""
    parser = parser_of("predict")
    verb_options.add_predict(parser)
    verb_options.add_use(parser)
    given = parser.parse_args(list(argv)).as_dict()
    images, model, bulk = given.pop("images"), given.pop("model"), {name: given.pop(name) for name in verb_options.BULK}
    if any(bulk.values()):
        from .bulk.command import predict_in_shards

        predict_in_shards(images, model, as_json=given.pop("json"), **given, **bulk)
        return
    from .answers import predict_and_print

    predict_and_print(images, model, as_json=given.pop("json"), **given)


def explain(argv: Sequence[str]) -> None:
    """Shows what in images spoke for an answer."""
    parser = parser_of("explain")
    verb_options.add_explain(parser)
    given = parser.parse_args(list(argv)).as_dict()
    from .explaining.command import explain_and_write

    explain_and_write(given.pop("images"), given.pop("model"), as_json=given.pop("json"), **given)


def neighbours(argv: Sequence[str]) -> None:
    """Finds near-duplicates and the nearest others of images with embeddings."""
    parser = parser_of("neighbours")
    verb_options.add_neighbours(parser)
    given = parser.parse_args(list(argv)).as_dict()
    from .inspecting.neighbours import find_and_write

    find_and_write(given.pop("answers"), **given)


def suspects(argv: Sequence[str]) -> None:
    """Names labels that are likely wrong."""
    parser = parser_of("suspects")
    verb_options.add_suspects(parser)
    given = parser.parse_args(list(argv)).as_dict()
    from .inspecting.suspects import find_and_write

    find_and_write(given.pop("model"), **given)


def export(argv: Sequence[str]) -> None:
    """Writes a trained model as one file for other engines."""
    from .exporting.options import ExportOptions

    parser = parser_of("export")
    parser.add_argument("model", type=str, help=verb_options.MODEL)
    parser.add_class_arguments(ExportOptions, fail_untyped=True)
    given = parser.parse_args(list(argv)).as_dict()
    from .exporting.export import export

    print(export(given.pop("model"), print, **given))


def check_data(argv: Sequence[str]) -> None:
    """Decodes a data set and names what is wrong with it."""
    from .command_line import PositiveInt

    parser = parser_of("check-data")
    parser.add_argument("data", type=str, help="Images, as for training")
    verb_options.add_labels(parser)
    parser.add_argument("--workers", type=PositiveInt, default=None, help="Decoders at once; one for each core")
    given = parser.parse_args(list(argv)).as_dict()
    from .data.checking import check_and_print

    check_and_print(**given)


def benchmark(argv: Sequence[str]) -> None:
    """Measures how fast models are, side by side."""
    from .benchmarking.options import BenchmarkOptions

    parser = parser_of("benchmark")
    parser.add_argument("models", type=str, nargs="+", help=verb_options.RIVALS)
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
    "neighbours": (neighbours, "find near-duplicates, and the images that are nearest to each"),
    "suspects": (suspects, "name labels that are likely wrong"),
    "export": (export, "write a trained model as one file for other engines, and check it"),
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
