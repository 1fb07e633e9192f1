"""What a server counts, in Prometheus's text format.

The process that answers HTTP counts, and it alone: the workers know nothing of requests, so nothing
has to be gathered from several processes.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from pipeline.inference.admission import Admission

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
NO_ANSWER = "none"  # the status of a request whose client went away


class Metrics:
    """The metrics of one server."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, admission: Admission, ready: Callable[[], bool]) -> None:
        """Read workers and queue from ``admission`` whenever they are asked for."""
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "edge_vit_requests", "Requests for classification", ["status"], registry=registry
        )
        self._seconds = Histogram(
            "edge_vit_request_seconds",
            "From the head of a request for classification to the end of its answer",
            buckets=BUCKETS,
            registry=registry,
        )
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "workers": ("Processes that classify", lambda: admission.workers),
            "queue_capacity": ("Requests that may wait", lambda: admission.queue),
            "queue_depth": (
                "Requests that wait for a worker",
                lambda: max(0, admission.in_flight - admission.workers),
            ),
            "requests_in_flight": (
                "Requests that wait or are classified",
                lambda: admission.in_flight,
            ),
            "ready": ("1 once the model is loaded and warm", lambda: float(ready())),
        }
        for name, (description, value) in gauges.items():
            Gauge(f"edge_vit_{name}", description, registry=registry).set_function(value)

    def record(self, status: int, seconds: float) -> None:
        """Count a request that was answered with ``status`` (0: not at all) in ``seconds``."""
        self._requests.labels(str(status or NO_ANSWER)).inc()
        self._seconds.observe(seconds)

    def text(self) -> bytes:
        """All metrics, as ``GET /metrics`` answers them."""
        return generate_latest(self._registry)
