"""A served model: its file, the workers that run it, and the exchange of both for newer ones."""

import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..about import About
from ..errors import UserError
from .batching import Waiting
from .lanes import Lane
from .metrics import Metrics
from .problems import busy
from .settings import Settings
from .worker import Opener, Worker, WorkerFailed, WorkerLost

LOG = logging.getLogger("supertokenvit.serving")
HURRY = 2.0  # seconds in which workers must end with the server
Fingerprint = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Source:
    """A model to serve."""

    path: Path
    """File or folder."""
    opener: Opener
    """Loads it, in a worker."""

    def files(self) -> list[Path]:
        """Returns what the model consists of: a folder's files, or a file and the weights that belong to it."""
        if self.path.is_dir():
            return sorted(path for path in self.path.iterdir() if path.is_file())
        weights = [self.path.with_suffix(".bin")] if self.path.suffix.lower() == ".xml" else []
        return [self.path, *weights]

    def fingerprint(self) -> Fingerprint | None:
        """Returns what changes when the model does; None while there is none."""
        try:
            found = [(path.name, path.stat()) for path in self.files()]
        except OSError:
            return None
        return tuple((name, stat.st_mtime_ns, stat.st_size, stat.st_ino) for name, stat in found)

    def copy_into(self, folder: Path) -> Path:
        """Copies the model, and returns where the copy is."""
        if not self.path.is_dir():
            for file in self.files():
                shutil.copyfile(file, folder / file.name)
            return folder / self.path.name
        inside = folder / self.path.name
        inside.mkdir()
        for file in self.files():
            shutil.copyfile(file, inside / file.name)
        return inside


class Generation:
    """A model as it was when it was read: a copy, so that later workers run the same as earlier ones.

    Args:
        source: What to read.
        settings: Workers and threads.

    Raises:
        UserError: The model cannot be loaded.
        OSError: It cannot be read.
    """

    def __init__(self, source: Source, settings: Settings) -> None:
        self.source, self.settings = source, settings
        self.folder = tempfile.TemporaryDirectory(prefix="supertokenvit-serve-")
        self.lanes: list[Lane] = []
        self.workers: list[Worker] = []
        try:
            self.copy = source.copy_into(Path(self.folder.name))
            for _ in range(settings.workers):
                self.workers.append(self.start())
            self.about = self._loaded()[0]
        except BaseException:
            for worker in self.workers:
                worker.kill()
            self.folder.cleanup()
            raise

    def start(self) -> Worker:
        """Starts a worker that loads the copy."""
        return Worker(self.source.opener, self.copy, self.settings.threads)

    def _loaded(self) -> Sequence[About]:
        try:
            return [worker.wait() for worker in self.workers]
        except (WorkerFailed, WorkerLost) as error:
            reason = str(error).replace(str(self.copy), str(self.source.path))
            raise UserError(reason or f"{self.source.path}: the process that loaded it ended") from None

    def end(self, seconds: float | None = None) -> None:
        """Ends the workers behind what they compute.

        Args:
            seconds: After which a worker is killed.
        """
        for lane in self.lanes:
            lane.end()
        for lane in self.lanes:
            lane.join(seconds)
        self.folder.cleanup()


class Host:
    """A served model.

    Args:
        source: Where it is.
        settings: Workers, threads and limits.
        metrics: Those of the server.

    Raises:
        UserError: It cannot be loaded.
    """

    def __init__(self, source: Source, settings: Settings, metrics: Metrics) -> None:
        self.source, self.settings = source, settings
        self.waiting = Waiting(settings.max_waiting_mb * 1e6)
        self.held = 0
        self.fingerprint = source.fingerprint()
        self.generation = Generation(source, settings)
        self.name = self.about.name
        self.metrics = metrics.of(self.name)
        self.metrics.queue.set_function(lambda: self.held)
        self._open_lanes(self.generation)

    @property
    def about(self) -> About:
        """The model that answers now."""
        return self.generation.about

    @property
    def ready(self) -> bool:
        """Whether a worker can answer."""
        return any(lane.ready for lane in self.generation.lanes)

    def hold(self, images: int) -> None:
        """Takes images in; only in the thread of the event loop, and so is `release`.

        Raises:
            Problem: There are too many already.
        """
        if self.held + images > self.settings.queue:
            raise busy("the queue is full")
        self.held += images

    def release(self, images: int) -> None:
        """Forgets images that have been answered."""
        self.held -= images

    def reload(self) -> None:
        """Loads the model anew beside the old one, which goes on if the new one cannot be used; it may take seconds."""
        self.fingerprint = self.source.fingerprint()
        try:
            fresh = Generation(self.source, self.settings)
        except (UserError, OSError) as error:
            LOG.error("%s: not reloaded, the old model goes on: %s", self.name, " ".join(str(error).split()))
            return
        old, self.generation = self.generation, fresh
        self._open_lanes(fresh)
        old.end()
        LOG.warning("%s: reloaded", self.name)

    def close(self) -> None:
        """Ends its workers; nobody waits for their answers any more."""
        self.generation.end(HURRY)

    def _open_lanes(self, generation: Generation) -> None:
        patience = 2 * self.settings.deadline + 10
        for worker in generation.workers:
            lane = Lane(
                generation.start, worker, generation.about, self.waiting, self.metrics,
                most=self.settings.batch, patience=patience,
            )  # fmt: skip
            generation.lanes.append(lane)
