"""What a run says while it runs: metric rows, TensorBoard events and a progress display."""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import jax
from etils import epath

from promptmad_jax.runtime import files
from promptmad_jax.runtime.events import EventFile

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_DIRECTORY = "tensorboard"
_RESERVED = ("step", "kind")

Kind = Literal["train", "eval", "fault", "host"]


class MetricsWriter:
    """Appends rows `{"step": ..., "kind": ..., name: value}` to `metrics.jsonl` and to TensorBoard.

    On a local disk every row is there at once, in an object store within seconds, or after `flush`.
    A full disk stops nothing: the rows wait for room. A value that is not finite is null in the
    file, for JSON has no NaN. Only process 0 writes; on the others all methods do nothing.
    """

    def __init__(self, workdir: epath.PathLike, resume_step: int):
        """Opens the logs below `workdir` and drops what lies after `resume_step`.

        A run that was killed has logged steps that it will now repeat: their rows are removed, and
        TensorBoard is told to disregard them.
        """
        self._path = epath.Path(workdir) / METRICS_FILE
        self._events = None
        if jax.process_index() != 0:
            return
        rows = [row for row in read_metrics(self._path) if row["step"] <= resume_step]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        self._rows = files.Appender(self._path, text.encode())
        self._events = EventFile(self._path.parent / TENSORBOARD_DIRECTORY, resume_step)
        self._waiting = False

    def write(self, step: int, metrics: Mapping[str, float], kind: Kind = "train") -> None:
        """Logs `metrics` of `step`; in TensorBoard under `kind/name`."""
        if self._events is None:
            return
        clash = [name for name in _RESERVED if name in metrics]
        if clash:
            raise ValueError(f"{clash[0]} is a column of every row and cannot name a metric")
        values = {name: float(value) for name, value in metrics.items()}
        row = {"step": step, "kind": kind} | {k: _finite(v) for k, v in values.items()}
        line, scalars = f"{json.dumps(row)}\n", {f"{kind}/{k}": v for k, v in values.items()}
        self._try(lambda: self._rows.append(line.encode()), lambda: self._events.add(scalars, step))

    def flush(self) -> None:
        """Writes what an object store or a full disk has not got yet."""
        if self._events is not None:
            self._try(self._rows.flush, self._events.flush)

    def close(self) -> None:
        """Flushes for the last time."""
        self.flush()

    def _try(self, *writes: Callable[[], None]) -> None:
        """Calls each; the first failure in a row is reported, and none stops the run."""
        failures = []
        for write in writes:
            try:
                write()
            except OSError as error:
                failures.append(error)
        if failures and not self._waiting:
            warn(f"the log in {self._path.parent} has to wait: {failures[0]}")
        self._waiting = bool(failures)


def read_metrics(path: epath.PathLike) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; none if the file does not exist.

    A last line that a killed process left unfinished is passed over.
    """
    path = epath.Path(path)
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def say(message: str) -> None:
    """Prints a line, by process 0 alone."""
    if jax.process_index() == 0:
        print(message, flush=True)


def warn(message: str) -> None:
    """Prints `warning: ...` on standard error, by process 0 alone."""
    if jax.process_index() == 0:
        print(f"warning: {message}", file=sys.stderr, flush=True)


class _Display(Protocol):
    def show(self, step: int, loss: float, rate: float, seconds_left: float) -> None: ...
    def close(self) -> None: ...


class Progress:
    """Where the training stands: step, loss, images/s and time left.

    A bar on a terminal; otherwise one line every `interval` seconds and a last one at the end.
    Use as a context manager. Only process 0 shows anything.
    """

    def __init__(self, total_steps: int, start_step: int, batch_size: int, interval: float = 10.0):
        """`batch_size` is that of the whole run, all devices together."""
        self._total, self._start, self._batch_size = total_steps, start_step, batch_size
        self._began = time.monotonic()
        self._display = self._make_display(interval) if jax.process_index() == 0 else None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def update(self, step: int, loss: float) -> None:
        """Shows that `step` steps are done, the last with `loss`."""
        if self._display is None:
            return
        done = step - self._start
        step_rate = done / max(time.monotonic() - self._began, 1e-9)
        seconds_left = (self._total - step) / step_rate if done else math.inf
        self._display.show(step, loss, step_rate * self._batch_size, seconds_left)

    def close(self) -> None:
        """Leaves the last state standing and gives the terminal back."""
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
        print(f"step {step}/{self._total}  {status}", flush=True)

    def close(self) -> None:
        """Nothing to give back: every line stands by itself."""


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
