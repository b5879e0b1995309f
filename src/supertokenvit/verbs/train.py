"""`supertokenvit train`: trains, or goes on with a run."""

from collections.abc import Sequence

from . import parser_of


def run(words: Sequence[str]) -> None:
    """Reads the options and does it."""
    from ..training.recipe import GROUPS, Recipe, changes_of

    parser = parser_of("train", usage="%(prog)s --data DATA [options]")
    parser.add_argument("--recipe", action="config", help="YAML file with values of these options")
    parser.add_argument("--resume", default=None, help="Run folder to go on with")
    parser.add_class_arguments(Recipe, fail_untyped=True)
    parser.put_under_headings({"most used": GROUPS["most used"], "begin or go on": ("recipe", "resume"), **GROUPS})
    parser.check_file_of("--recipe", words)
    given = parser.parse_args(list(words)).as_dict()
    given.pop("recipe", None)
    folder = given.pop("resume")
    if folder is None and not given["data"]:
        parser.error("--data is missing: a folder of images, or digits to try it")
    changed = {} if folder is None else changes_of(given, parser.get_defaults().as_dict())
    from ..machine import keep_freed_memory
    from ..training.run import resume, train_recipe

    keep_freed_memory()
    train_recipe(Recipe(**given)) if folder is None else resume(folder, **changed)
