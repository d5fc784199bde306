"""Messages and progress on the terminal."""

import collections
import sys
import time
from collections.abc import Collection, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")
INTERVAL = 10.0  # seconds between lines where no bar can move
# Steps that the shown rate is the mean of, and steps before it is shown.
RECENT, WARM = 50, 3


def _leads() -> bool:
    """Returns True on process 0, and before JAX is imported, which reading data does without."""
    jax = sys.modules.get("jax")
    return jax is None or jax.process_index() == 0


def say(message: str) -> None:
    """Prints a line; only process 0 does."""
    if _leads():
        print(message, flush=True)


def warn(message: str) -> None:
    """Prints `warning: ...` on standard error; only process 0 does."""
    if _leads():
        print(f"warning: {message}", file=sys.stderr, flush=True)


def track(items: Collection[T], what: str) -> Iterator[T]:
    """Yields the items of a phase; prints what it is at once, and shows how far it has come."""
    say(what)
    display = _make_display(what, len(items), 0, INTERVAL)
    try:
        for done, item in enumerate(items):
            yield item
            display.show(done + 1, "")
    finally:
        display.close()


class _Display(Protocol):
    def show(self, done: int, status: str) -> None: ...
    def close(self) -> None: ...


class Progress:
    """Shows step, loss, images/s and remaining time of a training; a context manager.

    On a terminal it is a bar that moves with each step, otherwise one line every `interval` seconds
    and one at the end. Only process 0 shows anything. The rate is that of the last `RECENT` steps;
    it and the remaining time leave out compiling and pauses, and are shown once they are known.
    """

    def __init__(
        self, total_steps: int, start_step: int, batch_size: int, interval: float = INTERVAL
    ):
        """`batch_size` counts the images of all devices."""
        self._total, self._step, self._batch_size = total_steps, start_step, batch_size
        self._loss = ""
        self._seconds: collections.deque[float] = collections.deque(maxlen=RECENT)
        self._time: float | None = None  # None until the first step has compiled
        self._display = _make_display("step", total_steps, start_step, interval)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def step(self, step: int) -> None:
        """Shows that `step` steps are complete."""
        if self._time is not None:
            self._seconds.append(time.monotonic() - self._time)
        self._step, self._time = step, time.monotonic()
        self._display.show(step, self._status())

    def loss(self, loss: float) -> None:
        """Shows the loss of the last steps, for which the caller has waited."""
        self._loss = f"loss {loss:.4f}"
        if self._seconds:
            self._seconds[-1] += time.monotonic() - self._time
        self.pause()
        self._display.show(self._step, self._status())

    def pause(self) -> None:
        """Excludes the time since the last step, spent on saving or evaluating, from the rate."""
        if self._time is not None:
            self._time = time.monotonic()

    def close(self) -> None:
        """Releases the terminal; the last state stays visible."""
        self._display.close()

    def _status(self) -> str:
        if len(self._seconds) < WARM:
            return self._loss
        step_s = max(sum(self._seconds) / len(self._seconds), 1e-9)
        rate, left = self._batch_size / step_s, _clock((self._total - self._step) * step_s)
        return f"{self._loss}  {rate:.1f} images/s  {left} left".lstrip()


def _make_display(label: str, total: int, start: int, interval: float) -> _Display:
    if not _leads():
        return _Nothing()
    if sys.stdout.isatty() and not _Bar.alive:
        return _Bar(label, total, start)
    return _Lines(label, total, interval)


class _Nothing:
    def show(self, done: int, status: str) -> None:
        """Shows nothing: another process does."""

    def close(self) -> None:
        """Nothing to release."""


class _Lines:
    def __init__(self, label: str, total: int, interval: float):
        self._label, self._total, self._interval = label, total, interval
        self._next_time, self._last = time.monotonic() + interval, ""

    def show(self, done: int, status: str) -> None:
        line = f"{self._label} {done}/{self._total}  {status}".rstrip()
        self._last = line if status else ""
        if time.monotonic() >= self._next_time:
            self._print(line)

    def close(self) -> None:
        """Prints the last line that has a status, if it has not been printed."""
        if self._last:
            self._print(self._last)

    def _print(self, line: str) -> None:
        print(line, flush=True)
        self._next_time, self._last = time.monotonic() + self._interval, ""


class _Bar:
    alive = False  # A terminal shows one at a time: an evaluation within a training has none.

    def __init__(self, label: str, total: int, start: int):
        from rich import progress

        self._progress = progress.Progress(
            progress.TextColumn(label),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[status]}"),
        )
        self._task = self._progress.add_task("", total=total, completed=start, status="")
        self._progress.start()
        _Bar.alive = True

    def show(self, done: int, status: str) -> None:
        self._progress.update(self._task, completed=done, status=status)

    def close(self) -> None:
        self._progress.stop()
        _Bar.alive = False


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
