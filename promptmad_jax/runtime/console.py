"""Messages and progress on the terminal."""

import math
import sys
import time
from typing import Protocol

import jax

from promptmad_jax.runtime.interrupts import pipe_closed


def say(message: str) -> None:
    """Prints a line; only process 0 does."""
    if jax.process_index() == 0:
        _print(message)


def _print(message: str) -> None:
    try:
        print(message, flush=True)
    except BrokenPipeError:
        pipe_closed()


def warn(message: str) -> None:
    """Prints `warning: ...` on standard error; only process 0 does."""
    if jax.process_index() == 0:
        print(f"warning: {message}", file=sys.stderr, flush=True)


class _Display(Protocol):
    def show(self, step: int, loss: float, rate: float, seconds_left: float) -> None: ...
    def close(self) -> None: ...


class Progress:
    """Shows step, loss, images/s and remaining time of a training; a context manager.

    On a terminal it is a bar, otherwise one line every `interval` seconds and one at the end. Only
    process 0 shows anything.
    """

    def __init__(self, total_steps: int, start_step: int, batch_size: int, interval: float = 10.0):
        """`batch_size` counts the images of all devices."""
        self._total, self._start, self._batch_size = total_steps, start_step, batch_size
        self._began, self._compiled = time.monotonic(), False
        self._display = self._make_display(interval) if jax.process_index() == 0 else None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def update(self, step: int, loss: float) -> None:
        """Shows that `step` steps are complete, the last with `loss`.

        The first call's time holds the compiling: it says nothing of the time left, and the speed
        of later calls leaves it out.
        """
        if self._display is None:
            return
        now = time.monotonic()
        step_rate = (step - self._start) / max(now - self._began, 1e-9)
        left = self._total - step
        seconds_left = left / step_rate if self._compiled or not left else math.inf
        self._display.show(step, loss, step_rate * self._batch_size, seconds_left)
        if not self._compiled:
            self._start, self._began, self._compiled = step, now, True

    def close(self) -> None:
        """Releases the terminal; the last state stays visible."""
        if self._display is not None:
            self._display.close()

    def _make_display(self, interval: float) -> _Display:
        if sys.stdout.isatty():
            return _Bar(self._total, self._start)
        return _Lines(self._total, interval)


class _Lines:
    def __init__(self, total: int, interval: float):
        self._total, self._interval = total, interval
        self._next_time = time.monotonic() + interval

    def show(self, step: int, loss: float, rate: float, seconds_left: float) -> None:
        now = time.monotonic()
        if now < self._next_time and step < self._total:
            return
        self._next_time = now + self._interval
        status = f"loss {loss:.4f}  {rate:.1f} images/s  {_clock(seconds_left)} left"
        _print(f"step {step}/{self._total}  {status}")

    def close(self) -> None:
        """Nothing to release."""


class _Bar:
    def __init__(self, total: int, start: int):
        from rich import progress

        self._progress = progress.Progress(
            progress.TextColumn("step"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[status]}"),
        )
        self._task = self._progress.add_task("train", total=total, completed=start, status="")
        self._progress.start()

    def show(self, step: int, loss: float, rate: float, seconds_left: float) -> None:
        status = f"loss {loss:.4f}  {rate:.1f} images/s  {_clock(seconds_left)} left"
        self._progress.update(self._task, completed=step, status=status)

    def close(self) -> None:
        self._progress.stop()


def _clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "-:--:--"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
