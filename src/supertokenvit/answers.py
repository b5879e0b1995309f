"""Where the answers of `supertokenvit predict` go: lines on the screen, JSON, CSV or Parquet, each as it comes."""

import csv
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from supertokenvit_runtime.decode import read_picture

from .console import is_watched, user_console
from .data.decode import printable
from .data.listing import find_images
from .errors import UsageError
from .explaining.command import Folder, explain_files
from .explaining.explanation import method_of, network_of
from .machine import keep_freed_memory
from .prediction import BATCH, Prediction, PredictionError, load
from .run_folder import PREDICTIONS

ROW_GROUP = 10_000
PICTURES_AT_ONCE = 8  # whose answers, in the photographs' own sizes, are in memory
WIDEST = 48  # characters for a file's name in a line; longer ones push the rest of their line to the right


def predict_and_print(
    images: Sequence[str],
    model: str | None = None,
    *,
    out: str | None = None,
    as_json: bool = False,
    topk: int = 5,
    batch_size: int = BATCH,
    explain: str | None = None,
    **options: Any,
) -> None:
    """Answers for image files and prints each answer, or writes it to a file, as it comes.

    Args:
        images: Files, and folders of them.
        model: As in prediction.load.
        out: File to write to; its ending is .csv, .jsonl or .parquet. It has its name only when it is complete. Where
            answers are pictures, a folder for them; "predictions" by default.
        as_json: Print lines of JSON.
        topk: Classes to name.
        batch_size: Images at once.
        explain: Folder for pictures of what spoke for the likeliest class of each image.
        **options: Further options of prediction.load.

    Raises:
        PredictionError: Some image could not be read; the others have been answered.
        ExplanationError: The answers are to be explained, and the model cannot be.
        UsageError: The ending of `out` is none of these.
    """
    keep_freed_memory()
    files = find_images(images)
    predictor = load(model, **options)
    if explain is not None:
        method_of(predictor, network_of(predictor), None)  # what cannot be explained is said before the work
    topk = min(topk, len(predictor.classes))
    pictures = Pictures(Path(out or "predictions"), files) if predictor.task.heads else None
    writer = None if out is None or pictures is not None else writer_for(Path(out), topk)
    if pictures is not None:
        batch_size = min(batch_size, predictor.task.at_once)
    if model is None:
        known = f"{predictor.name} tells apart, and nothing else: {', '.join(predictor.classes)}"
        print(known, file=sys.stderr)
    width = min(WIDEST, max((len(printable(file)) for file in files), default=0))
    wrong: set[str] = set()
    began = time.monotonic()
    rows = watched(predictor.predict(files, topk, batch_size), len(files), hidden=writer is None)
    kept_by = writer if pictures is None else pictures.rows
    for row in rows if kept_by is None else kept_by.kept(rows):
        if row.error is not None:
            wrong.add(row.file)
            print(f"supertokenvit: {row.file}: {row.error}", file=sys.stderr)
        if pictures is not None and row.error is None:
            pictures.write(row)
        if writer is not None:
            continue
        if as_json:
            print(json_line(row))
        elif row.error is None:
            print(row.line(width))
    if writer is not None:
        seconds = time.monotonic() - began
        print(f"written: {out} ({len(files):,} images, {len(files) / max(seconds, 1e-9):,.0f} images/s)")
    if pictures is not None and not as_json:
        print(f"written: {pictures.folder}")
    if explain is not None:
        explain_files(predictor, [file for file in files if printable(file) not in wrong], Folder(Path(explain)))
        print(f"explained: {explain} (overlays, maps as .npy, explanations.png)", file=sys.stderr)
    if wrong:
        raise PredictionError(f"{len(wrong)} image{'s' * (len(wrong) > 1)} could not be read (named above)")


def json_line(row: Any) -> str:
    """Writes an answer as one line of JSON."""
    return json.dumps(row.as_dict())


def watched(rows: Iterator[Prediction], total: int, hidden: bool) -> Iterator[Prediction]:
    """Passes answers on with a progress bar on standard error; hidden where the answers themselves are seen."""
    columns = (TextColumn("Predicting"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeRemainingColumn())
    console = user_console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=hidden or not is_watched(console)) as bar:
        yield from bar.track(rows, total=total)


class Pictures:
    """A folder of answers as pictures, each called after its photograph, with all answers as lines of JSON.

    Args:
        folder: Where to.
        photographs: That are answered for.

    Raises:
        UsageError: It is a file of answers, or the folder of a photograph, which could be overwritten.
    """

    def __init__(self, folder: Path, photographs: Sequence[Path]) -> None:
        self.folder, self.used = folder, set[str]()
        if folder.suffix in WRITERS:
            raise UsageError(f"--out {folder}: the answers are pictures: name a folder; --json prints figures")
        if any(path.resolve().parent == folder.resolve() for path in photographs):
            raise UsageError(f"--out {folder}: photographs are in it, which would be overwritten: name another folder")
        self.rows = JsonLines(folder / PREDICTIONS, 0)

    def write(self, row: Any) -> None:
        """Writes the pictures of an answer."""
        stem, number = Path(row.file).stem, 2
        while stem in self.used:
            stem, number = f"{Path(row.file).stem}-{number}", number + 1
        self.used.add(stem)
        for suffix, picture in row.pictures(read_picture(row.file)).items():
            picture.save(self.folder / f"{stem}{suffix}.png")


class Writer(ABC):
    """A file of answers, called NAME.part until it is complete.

    Args:
        path: Of the file.
        topk: Classes that are named for each image.
    """

    def __init__(self, path: Path, topk: int) -> None:
        self.path, self.topk = path, topk
        self.part = path.with_name(path.name + ".part")
        path.parent.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def add(self, row: Prediction) -> None:
        """Writes an answer."""

    @abstractmethod
    def finish(self) -> None:
        """Writes what is left and closes the file."""

    def kept(self, rows: Iterator[Prediction]) -> Iterator[Prediction]:
        """Writes answers as they pass, and gives the file its name behind the last; what breaks off stays NAME.part."""
        try:
            for row in rows:
                self.add(row)
                yield row
        finally:
            self.finish()
        self.part.replace(self.path)


class JsonLines(Writer):
    """A line of JSON for each image."""

    def __init__(self, path: Path, topk: int) -> None:
        super().__init__(path, topk)
        self.file = open(self.part, "w", encoding="utf-8")

    def add(self, row: Prediction) -> None:
        """Writes an answer."""
        self.file.write(json_line(row) + "\n")

    def finish(self) -> None:
        """Closes the file."""
        self.file.close()


class Csv(Writer):
    """Columns file, label_1, probability_1, label_2, ..., error."""

    def __init__(self, path: Path, topk: int) -> None:
        super().__init__(path, topk)
        self.file = open(self.part, "w", encoding="utf-8", newline="")
        self.csv = csv.writer(self.file)
        numbered = [f"{name}_{k}" for k in range(1, topk + 1) for name in ("label", "probability")]
        self.csv.writerow(["file", *numbered, "error"])

    def add(self, row: Prediction) -> None:
        """Writes an answer."""
        cells = [cell for pair in zip(row.labels, row.probabilities, strict=True) for cell in pair]
        self.csv.writerow([row.file, *cells, *[""] * (2 * self.topk - len(cells)), row.error or ""])

    def finish(self) -> None:
        """Closes the file."""
        self.file.close()


class Parquet(Writer):
    """Columns file, labels, probabilities (lists) and error."""

    def __init__(self, path: Path, topk: int) -> None:
        pyarrow = parquet_library(path)
        super().__init__(path, topk)
        self.make: Callable[..., Any] = pyarrow.Table.from_pylist
        self.schema = schema_of_answers(pyarrow)
        self.file = pyarrow.parquet.ParquetWriter(self.part, self.schema)
        self.rows: list[dict[str, Any]] = []

    def add(self, row: Prediction) -> None:
        """Keeps an answer until there are enough for a row group."""
        self.rows.append(asdict(row))
        if len(self.rows) == ROW_GROUP:
            self._flush()

    def finish(self) -> None:
        """Writes the last row group and closes the file."""
        self._flush()
        self.file.close()

    def _flush(self) -> None:
        if self.rows:
            self.file.write_table(self.make(self.rows, self.schema))
            self.rows = []


def parquet_library(path: Path) -> Any:
    """Imports pyarrow, or raises UsageError about the file that needs it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError(f"--out {path}: pyarrow is not installed: pip install 'supertokenvit[parquet]'") from None
    return pyarrow


def schema_of_answers(pyarrow: Any, embeddings: bool = False) -> Any:
    """Returns the columns of a Parquet file of answers; embeddings are optional."""
    text, number = pyarrow.string(), pyarrow.float64()
    columns = {"file": text, "labels": pyarrow.list_(text), "probabilities": pyarrow.list_(number), "error": text}
    return pyarrow.schema(columns | ({"embedding": pyarrow.list_(pyarrow.float32())} if embeddings else {}))


WRITERS: dict[str, type[Writer]] = {".csv": Csv, ".jsonl": JsonLines, ".parquet": Parquet}


def check_ending(path: Path) -> None:
    """Raises UsageError for a file whose ending is not known."""
    if path.suffix.lower() not in WRITERS:
        raise UsageError(f"--out {path}: must end in {', '.join(WRITERS)}")


def writer_for(path: Path, topk: int) -> Writer:
    """Opens the file of answers that an ending asks for.

    Raises:
        UsageError: The ending is not known, or its library is missing.
    """
    check_ending(path)
    return WRITERS[path.suffix.lower()](path, topk)
