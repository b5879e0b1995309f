"""This module answers one shard of images and writes its rows; it is what every worker runs."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..answers import parquet_library, schema_of_answers
from ..prediction import Prediction, Predictor, load
from ..run_folder import put_in_place
from .embedding import with_embeddings
from .pictures import Contents, Picture, name_of


@dataclass(frozen=True)
class Question:
    """What is asked of every image.

    Args:
        model: As in prediction.load.
        options: Further options of prediction.load, as pairs.
        topk: Classes to name.
        batch_size: Images that the network sees at once.
        embeddings: Whether to give what the classifier sees, too.
    """

    model: str
    options: tuple[tuple[str, Any], ...]
    topk: int
    batch_size: int
    embeddings: bool = False

    def predictor(self) -> Predictor:
        """Loads the model.

        Raises:
            UserError: It cannot be loaded, or gives no embeddings.
        """
        predictor = load(self.model, **dict(self.options))
        return with_embeddings(predictor) if self.embeddings else predictor


@dataclass(frozen=True)
class Shard:
    """A run of images whose rows become one file.

    Args:
        pictures: The images.
        path: Of the file of rows.
    """

    pictures: Sequence[Picture]
    path: Path


@dataclass(frozen=True)
class Done:
    """What a worker says of a shard whose file is in its place.

    Args:
        images: How many rows it has.
        unread: Images that could not be read, each with the reason.
    """

    images: int
    unread: list[tuple[str, str]]


loaded = functools.lru_cache(maxsize=1)(Question.predictor)
"""Loads the model once in each process."""


def answer_shard(question: Question, shard: Shard) -> Done:
    """Answers the images of a shard, and writes its file whole or not at all.

    The batches of a shard do not depend on who answers it, so that whoever does writes the same rows.
    """
    rows = list(rows_of(loaded(question), question, shard.pictures))
    write_rows(shard.path, rows, question.embeddings)
    return Done(len(rows), [(row.file, row.error) for row in rows if row.error is not None])


def rows_of(predictor: Predictor, question: Question, pictures: Sequence[Picture]) -> Iterator[Prediction]:
    """Answers images in order, wherever they lie."""
    contents = Contents(pictures)
    answers = predictor.predict(contents, question.topk, question.batch_size)
    for place, (picture, row) in enumerate(zip(pictures, answers, strict=True)):
        yield dataclasses.replace(row, file=name_of(picture), error=contents.reasons.get(place, row.error))


def write_rows(path: Path, rows: Sequence[Prediction], embeddings: bool) -> None:
    """Writes rows under a name of this process's own, makes sure that they are on the disk, and renames the file."""
    pyarrow = parquet_library(path)
    table = pyarrow.Table.from_pylist([asdict(row) for row in rows], schema_of_answers(pyarrow, embeddings))
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    pyarrow.parquet.write_table(table, temporary)
    put_in_place(temporary, path)
