"""This module is `supertokenvit predict` over several processes."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..answers import parquet_library
from ..console import say, user_console, watched
from ..engines.graph_file import is_graph
from ..errors import UsageError
from ..model_folder import read_config, shipped_model
from ..prediction import BATCH, PredictionError
from .parts import ROWS, Job, Parts
from .pictures import Picture, find_pictures, fingerprint_of
from .shard import Done, Question, Shard
from .workers import answered


def predict_in_shards(
    images: Sequence[str],
    model: str | None = None,
    *,
    out: str | None = None,
    processes: int | None = None,
    cluster: str | None = None,
    resume: bool = False,
    embeddings: bool = False,
    topk: int = 5,
    batch_size: int = BATCH,
    as_json: bool = False,
    explain: str | None = None,
    **options: Any,
) -> None:
    """Answers for images into one Parquet file, in parts that survive whatever happens to this command.

    Args:
        images: As in pictures.find_pictures.
        model: As in prediction.load.
        out: The file; its ending is .parquet. Until it is complete, its parts are in NAME.parts beside it.
        processes: That answer, each with its share of the cores; 1 by default.
        cluster: "ray" to answer on the machines of a Ray cluster, by default on all of their cores.
        resume: Go on with what an earlier call left; a file that is complete already stays.
        embeddings: Write what the classifier sees, too.
        topk: Classes to name.
        batch_size: Images at once.
        as_json: Refused, as rows go to the file.
        explain: Refused likewise.
        **options: Further options of prediction.load.

    Raises:
        PredictionError: Some image could not be read; the others have been answered.
        UsageError: Options that do not go together.
        PartsError: Answers are there that cannot be gone on with.
        WorkerError: A worker died; what was answered is kept.
    """
    path = checked(out, as_json=as_json, explain=explain)
    pictures = find_pictures(images)
    question = question_of(str(model or shipped_model()), options, topk, batch_size, embeddings)
    job = job_of(question, pictures)
    parts = Parts(path)
    with parts.owned():
        if parts.begin(job, resume):
            missing = parts.missing(job)
            began, before = time.monotonic(), job.count - sum(len(of(pictures, job, number)) for number in missing)
            shards = (Shard(of(pictures, job, number), parts.path(number)) for number in missing)
            if missing:
                work(answering(cluster, processes)(question, shards), before, job.count)
            parts.join(job, embeddings)
            print(written(path, job.count, before, time.monotonic() - began))
        else:
            print(f"complete already: {path} ({job.count:,} images)")
    unread = parts.unread()
    if unread:
        raise PredictionError(f"{unread} image{'s' * (unread > 1)} could not be read (column error of {path})")


def answering(cluster: str | None, processes: int | None) -> Callable[[Question, Iterable[Shard]], Iterator[Done]]:
    """Chooses what answers shards: processes of this machine, or those of a cluster."""
    if cluster is None:
        return partial(answered, processes or 1)
    from .cluster import answered_by_cluster

    return partial(answered_by_cluster, processes)


def checked(out: str | None, *, as_json: bool, explain: str | None) -> Path:
    """Returns the path of the file of answers.

    Raises:
        UsageError: It is no Parquet file, pyarrow is missing, or the answers are to go elsewhere too.
    """
    if out is None or Path(out).suffix.lower() != ".parquet":
        raise UsageError(
            "--processes, --cluster, --resume and --embeddings write Parquet: name a file with --out NAME.parquet"
        )
    if as_json or explain is not None:
        raise UsageError(
            f"--{'json' if as_json else 'explain'}: not with --processes, --cluster, --resume or --embeddings"
        )
    parquet_library(Path(out))
    return Path(out)


def question_of(model: str, options: dict[str, Any], topk: int, batch_size: int, embeddings: bool) -> Question:
    """Makes sure that the model can be asked before any process is started.

    Raises:
        UsageError: Its answers are pictures.
        UserError: It cannot be loaded, or gives no embeddings.
    """
    given = tuple((name, value) for name, value in sorted(options.items()))
    question = Question(model, given, topk, batch_size, embeddings)
    predictor = question.predictor()
    if predictor.task.heads:
        raise UsageError(f"--processes: not for {predictor.card.task}, whose answers are pictures")
    return Question(model, given, min(topk, len(predictor.classes)), batch_size, embeddings)


def job_of(question: Question, pictures: Sequence[Picture]) -> Job:
    """Writes down what decides the rows; the number of processes does not."""
    options = dict(question.options) | {"topk": question.topk, "batch_size": question.batch_size}
    options = {"embeddings": question.embeddings} | options
    return Job(fingerprint_of(pictures), len(pictures), fingerprint_of_model(question.model), options, ROWS)


def fingerprint_of_model(model: str) -> str:
    """Returns hexadecimal digits that change with the files of a model."""
    if is_graph(model):
        files = [Path(model), Path(model).with_suffix(".bin")]
    else:
        files = sorted(path for path in read_config(model)[0].iterdir() if path.suffix in (".json", ".safetensors"))
    digest = hashlib.sha256()
    for file in files:
        if file.exists():
            with open(file, "rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:32]


def of(pictures: Sequence[Picture], job: Job, number: int) -> Sequence[Picture]:
    """Returns the images of one part."""
    return pictures[number * job.rows : (number + 1) * job.rows]


def work(results: Iterator[Done], before: int, total: int) -> None:
    """Waits for shards with a progress bar of images, and names images that could not be read.

    Args:
        results: What workers say of shards.
        before: Images that were answered before.
        total: Images of all shards.
    """
    console = user_console(stderr=True)

    def images() -> Iterator[None]:
        yield from [None] * before
        for done in results:
            for file, reason in done.unread:
                say(console, f"supertokenvit: {file}: {reason}")
            yield from [None] * done.images

    for _ in watched(images(), "Predicting", total, console):
        pass


def written(path: Path, total: int, before: int, seconds: float) -> str:
    """Says what was written, and how fast."""
    kept = f", {before:,} of them answered before" if before else ""
    return f"written: {path} ({total:,} images{kept}, {(total - before) / max(seconds, 1e-9):,.0f} images/s)"
