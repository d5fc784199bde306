"""Metrics of a training run: rows of metrics.jsonl and TensorBoard events."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
from etils import epath

from promptmad_jax.runtime import files
from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.tensorboard import EventFile

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_DIRECTORY = "tensorboard"
_RESERVED = ("step", "kind")

Kind = Literal["train", "eval", "fault", "host"]


class MetricsWriter:
    """Appends rows `{"step": ..., "kind": ..., name: value}` to `metrics.jsonl` and to TensorBoard.

    A row appears at once on a local disk, and within seconds or after `flush` in an object store.
    When the disk is full, rows wait for space and training goes on. Values that are not finite
    become null, since JSON has no NaN. Only process 0 writes; on others all methods do nothing.
    """

    def __init__(self, workdir: epath.PathLike, resume_step: int):
        """Opens the logs below `workdir` without the rows after `resume_step`.

        A killed run has logged steps that it now repeats. TensorBoard ignores them.
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
        """Logs the metrics of a step; TensorBoard shows them as `kind/name`."""
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
        """Writes what an object store or a full disk has not taken yet."""
        if self._events is not None:
            self._try(self._rows.flush, self._events.flush)

    def _try(self, *writes: Callable[[], None]) -> None:
        """Calls each, without raising OSError; warns of the first in a sequence of failures."""
        failures = []
        for write in writes:
            try:
                write()
            except OSError as error:
                failures.append(error)
        if failures and not self._waiting:
            warn(f"the log in {self._path.parent} cannot be written yet: {failures[0]}")
        self._waiting = bool(failures)


def read_metrics(path: epath.PathLike) -> list[dict[str, Any]]:
    """Returns the rows of a `metrics.jsonl`, or none if the file does not exist.

    An unfinished last line, left by a killed process, is skipped.
    """
    path = epath.Path(path)
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
