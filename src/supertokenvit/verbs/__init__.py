"""The verbs of the command: each module reads the options of one and calls one function of a room."""

from typing import Any

VERBS: dict[str, str] = {
    "train": "train a model on your images",
    "evaluate": "measure a trained model on labelled images",
    "predict": "say what is on images",
    "serve": "answer over HTTP",
    "explain": "show what in images spoke for an answer",
    "neighbours": "find near-duplicates, and the images that are nearest to each",
    "suspects": "name labels that are likely wrong",
    "export": "write a trained model as one file for other engines, or as a page, and check it",
    "push": "put a trained model on the Hugging Face Hub",
    "check-data": "decode a data set and name what is wrong with it",
    "benchmark": "measure how fast models are, side by side",
    "models": "list the variants",
}
"""What each does; its module has the same name."""


def parser_of(verb: str, **options: Any) -> Any:
    """Makes the parser of a verb, whose line in VERBS is its description."""
    from ..command_line import Parser

    text = VERBS[verb]
    return Parser(prog=f"supertokenvit {verb}", description=f"{text[0].upper()}{text[1:]}.", **options)
