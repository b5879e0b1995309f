"""What a server counts, for Prometheus."""

from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
BATCHES = (1, 2, 4, 8, 16, 32, 64)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclass
class ModelMetrics:
    """Those of one model."""

    batch: Histogram
    """Images of a batch."""
    seconds: Histogram
    """Seconds of the engine for a batch."""
    restarted: Counter
    """Workers that were replaced."""
    queue: Gauge
    """Images that wait or are computed."""


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        it = {"registry": self.registry, "namespace": "supertokenvit"}
        self.requests = Counter("requests", "Requests by route and status", ["route", "status"], **it)  # type: ignore[arg-type]
        self.latency = Histogram(
            "request_seconds", "Seconds of a request", ["route"], buckets=SECONDS, **it  # type: ignore[arg-type]
        )  # fmt: skip
        self.batch = Histogram("batch_size", "Images of a batch", ["model"], buckets=BATCHES, **it)  # type: ignore[arg-type]
        self.seconds = Histogram(
            "engine_seconds", "Seconds of the engine for a batch", ["model"], buckets=SECONDS, **it  # type: ignore[arg-type]
        )  # fmt: skip
        self.restarted = Counter("workers_restarted", "Workers that were replaced", ["model"], **it)  # type: ignore[arg-type]
        self.queue = Gauge("queue_length", "Images that wait or are computed", ["model"], **it)  # type: ignore[arg-type]

    def of(self, model: str) -> ModelMetrics:
        """Returns those of one model."""
        return ModelMetrics(
            self.batch.labels(model), self.seconds.labels(model), self.restarted.labels(model), self.queue.labels(model)
        )

    def text(self) -> bytes:
        """Writes them in the text format of Prometheus."""
        return generate_latest(self.registry)
