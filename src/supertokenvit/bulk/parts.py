"""This module keeps the parts of an unfinished file of answers, says which are missing, and joins them at the end."""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..answers import ROW_GROUP, parquet_library, schema_of_answers
from ..errors import UserError
from ..run_folder import put_in_place, write_json

ROWS = 500  # in a part: a killed run answers at most so many images anew for each of its workers
KEY = b"supertokenvit"
LOCK = ".lock"
OURS = re.compile(r"\d{6,}\.parquet|\.\d{6,}\.parquet-\d+|\.joined")
"""Names of parts, of parts that a killed worker left half written, and of the file that is made of them."""
WHAT = {"images": "a different list of images", "model": "another model", "options": "other options"}


class PartsError(UserError):
    """Reports answers that cannot be gone on with."""


@dataclass(frozen=True)
class Job:
    """What decides every row of a file of answers.

    Args:
        images: Fingerprint of the list of images.
        count: How many they are.
        model: Fingerprint of the model's files.
        options: Everything else that changes rows.
        rows: Rows in a part.
    """

    images: str
    count: int
    model: str
    options: dict[str, Any]
    rows: int

    @property
    def parts(self) -> int:
        """How many parts there will be."""
        return -(-self.count // self.rows)

    def must_equal(self, text: str, where: Path) -> None:
        """Refuses to go on with what was asked otherwise.

        Args:
            text: The other job as JSON.
            where: It was written down.

        Raises:
            PartsError: It is another job.
        """
        before = json.loads(text)
        changed = [key for key, value in json.loads(json.dumps(asdict(self))).items() if before.get(key) != value]
        if changed:
            said = next((WHAT[key] for key in changed if key in WHAT), "other parts")
            raise PartsError(
                f"{where}: was begun with {said}; ask for the same again, or choose another --out to begin anew"
            )


class Parts:
    """The folder NAME.parts beside a file of answers that is being made.

    Args:
        out: The file of answers.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(f"{out.name}.parts")
        self.job = self.folder / "job.json"

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Keeps other commands from writing the same answers while this lasts.

        Raises:
            PartsError: Another command does.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise PartsError(f"{self.out}: another command is writing it; wait for its end") from None
        try:
            yield
        finally:
            if not self.job.exists():
                self._clear("[.0-9]*")
            lock.release()
            with contextlib.suppress(OSError):  # it is kept as long as there is anything else in it
                if not self.job.exists():
                    (self.folder / LOCK).unlink()
                    self.folder.rmdir()

    def _clear(self, pattern: str) -> None:
        """Removes files of ours whose names fit a pattern."""
        for path in self.folder.glob(pattern):
            if OURS.fullmatch(path.name):
                path.unlink()

    def begin(self, job: Job, resume: bool) -> bool:
        """Writes down what is asked, or makes sure that it is what was asked before.

        Args:
            job: What is asked.
            resume: Whether to go on with what is there; if nothing is, it begins.

        Returns:
            Whether anything is left to be done.

        Raises:
            PartsError: Something is there and it is not to be gone on with, or it was asked otherwise.
        """
        if self.job.exists():
            if not resume:
                raise PartsError(f"{self.folder}: holds unfinished answers; go on with --resume, or remove it")
            job.must_equal(self.job.read_text("utf-8"), self.folder)
            self._clear(".[0-9]*")
            return True
        if resume and self.out.exists():
            job.must_equal(self.written_for(), self.out)
            return False
        self._clear("*")  # of a command that was killed at its very end
        write_json(self.job, asdict(job))
        return True

    def path(self, number: int) -> Path:
        """Returns the path of a part; it is there only when it is complete."""
        return self.folder / f"{number:06}.parquet"

    def missing(self, job: Job) -> list[int]:
        """Returns the numbers of the parts that are yet to be written."""
        there = {path.name for path in self.folder.iterdir()}
        return [number for number in range(job.parts) if self.path(number).name not in there]

    def written_for(self) -> str:
        """Returns what was asked of a file of answers that is complete, as JSON.

        Raises:
            PartsError: The file does not say it.
        """
        pyarrow = parquet_library(self.out)
        try:
            metadata = pyarrow.parquet.read_schema(self.out).metadata or {}
        except pyarrow.ArrowInvalid:
            metadata = {}
        if KEY not in metadata:
            raise PartsError(f"{self.out}: is there already, and not from --processes; choose another --out")
        return metadata[KEY].decode()

    def join(self, job: Job, embeddings: bool) -> None:
        """Makes the one file of all parts, in their order, and removes them when it is on the disk."""
        pyarrow = parquet_library(self.out)
        temporary = self.folder / ".joined"
        schema = schema_of_answers(pyarrow, embeddings).with_metadata({KEY: json.dumps(asdict(job))})
        with pyarrow.parquet.ParquetWriter(temporary, schema) as file:
            waiting: list[Any] = []
            for number in range(job.parts):
                waiting.append(pyarrow.parquet.read_table(self.path(number), schema=schema))
                if sum(map(len, waiting)) >= ROW_GROUP or number == job.parts - 1:
                    file.write_table(pyarrow.concat_tables(waiting).replace_schema_metadata(schema.metadata))
                    waiting = []
        put_in_place(temporary, self.out)
        self.job.unlink()  # from here on the file of answers says what was asked

    def unread(self) -> int:
        """Counts the images of a complete file of answers that could not be read."""
        errors = parquet_library(self.out).parquet.read_table(self.out, columns=["error"])["error"]
        return len(errors) - errors.null_count
