"""Images of many requests, scored together on the device."""

import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from promptmad_jax.serving.prediction import Prediction, Predictor

_POLL_SECONDS = 0.1


class Busy(Exception):
    """The queue or the memory is full.

    Attributes:
        seconds: until there is likely room.
    """

    def __init__(self, seconds: float):
        super().__init__(f"busy for about {seconds:.1f} s")
        self.seconds = seconds


@dataclass(frozen=True, eq=False)
class Scored:
    """A prediction, and the seconds it waited and was computed."""

    prediction: Prediction
    waited: float
    computed: float


@dataclass(frozen=True, eq=False)
class _Job:
    image: np.ndarray
    class_name: str
    future: Future
    began: float = field(default_factory=time.monotonic)


class DeviceQueue:
    """Scores images in batches in a thread of its own, which alone uses the device.

    A batch is what waits when the device is free, at most `batch_size` images. After a batch of
    several, the first image of the next waits at most `patience` seconds for others.

    Args:
        capacity: images that may wait; more are refused.
    """

    def __init__(self, predictor: Predictor, batch_size: int, patience: float, capacity: int):
        self._predictor, self._batch_size, self._patience = predictor, batch_size, patience
        self._jobs: queue.Queue[_Job] = queue.Queue(capacity)
        self._seconds = 0.1  # for an image, smoothed
        self._several = False  # images were in the batch before
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="device", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Images that wait."""
        return self._jobs.qsize()

    def submit(self, image: np.ndarray, class_name: str) -> "Future[Scored]":
        """Queues an image uint8 [H, W, 3].

        Raises:
            Busy: the queue is full, or about to end.
        """
        job = _Job(image, class_name, Future())
        if self._ended.is_set():
            raise Busy(self._seconds)
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise Busy(self._seconds * self._jobs.qsize()) from None
        return job.future

    def close(self) -> None:
        """Scores what waits, then ends the thread."""
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        while not (self._ended.is_set() and self._jobs.empty()):
            batch = self._next_batch()
            for name in dict.fromkeys(job.class_name for job in batch):
                self._score([job for job in batch if job.class_name == name], name)

    def _next_batch(self) -> list[_Job]:
        try:
            batch = [self._jobs.get(timeout=_POLL_SECONDS)]
        except queue.Empty:
            return []
        deadline = time.monotonic() + self._patience * self._several
        while len(batch) < self._batch_size:
            try:
                batch.append(self._jobs.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                break
        self._several = len(batch) > 1
        return batch

    def _score(self, jobs: list[_Job], class_name: str) -> None:
        began = time.monotonic()
        try:
            predictions = self._predictor([job.image for job in jobs], class_name)
        except Exception as error:  # Belongs to the requests; the thread must go on.
            for job in jobs:
                job.future.set_exception(error)
            return
        seconds = time.monotonic() - began
        self._seconds += 0.2 * (seconds / len(jobs) - self._seconds)
        for job, prediction in zip(jobs, predictions, strict=True):
            job.future.set_result(Scored(prediction, began - job.began, seconds))
