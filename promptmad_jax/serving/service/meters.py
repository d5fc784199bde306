"""Counters and timings of the service in Prometheus' form."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Meters:
    """The metrics of one service.

    Args:
        depth: images that wait for the device.
    """

    def __init__(self, depth: Callable[[], int]):
        self._registry = CollectorRegistry()
        own = {"registry": self._registry}
        self.requests = Counter("promptmad_requests", "Answers by status", ["status"], **own)
        self.verdicts = Counter(
            "promptmad_verdicts", "Images by class and verdict", ["class_name", "verdict"], **own
        )
        self.seconds = Histogram(
            "promptmad_predict_seconds", "From request to answer", buckets=_SECONDS, **own
        )
        waiting = Gauge("promptmad_queue_images", "Images that wait for the device", **own)
        waiting.set_function(depth)

    def text(self) -> bytes:
        """All metrics, as a scrape reads them."""
        return generate_latest(self._registry)
