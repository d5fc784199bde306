"""What a running training measures of itself, without making accelerators wait for it."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.processes import Communicator, gather_objects
from promptmad_jax.training.update import Metrics

T = TypeVar("T")
GIB = 2.0**30


class Monitor:
    """Steps since the last row and since the start.

    Every process calls `row` at the same steps: there, and there alone, the devices are waited for
    and the processes talk.

    Args:
        batch_size: of the whole run. step: where it goes on from. run: its processes.
    """

    def __init__(self, batch_size: int, step: int, run: Communicator):
        self._batch_size, self._run = batch_size, run
        self._metrics: list[Metrics] = []
        self._waited = 0.0
        self._began = time.perf_counter()
        self._rows: list[dict[str, float]] = []
        self._counts: list[int] = []
        self._hosts: dict[str, float] = {}
        self._problem = ""
        self.restart(step)

    def restart(self, step: int) -> None:
        """Begins to measure after `step`; what came before, as saving, counts for no step."""
        self._step, self._time, self._waited = step, time.perf_counter(), 0.0

    def wait_for(self, batch: Callable[[], T]) -> T:
        """The batch, noting how long this process took to cut it."""
        begin = time.perf_counter()
        result = batch()
        self._waited += time.perf_counter() - begin
        return result

    def add(self, metrics: Metrics) -> None:
        """Takes a step's metrics, which stay on the device until the next row."""
        self._metrics.append(metrics)

    def row(self, step: int) -> dict[str, float]:
        """Means since the last row.

        Returns:
            The metrics of the step; `images_per_s` of all processes together; `step_s`;
            `data_wait_s` a step, of the process that took longest to cut its batches, which
            accelerators need not notice as long as it is less than `step_s`; `nonfinite_steps`, how
            many had a loss or gradient that was NaN or infinite; and, where the devices tell,
            `device_memory_gib` and `device_memory_peak_gib` of the fullest.
        """
        rows, self._metrics = jax.device_get(self._metrics), []
        count = step - self._step
        seconds = (time.perf_counter() - self._time) / count
        own = {"time": time.time(), "data_wait_s": self._waited / count} | _memory()
        hosts = gather_objects(self._run, own)
        self._hosts = {
            f"{name}/{index}": value
            for index, host in enumerate(hosts)
            for name, value in host.items()
        }
        result = self._means(rows, step) | {
            "images_per_s": self._batch_size / seconds,
            "step_s": seconds,
        }
        shared = [name for name in own if name not in ("time", "host_memory_gib")]
        result |= {name: max(host[name] for host in hosts) for name in shared}
        self._rows.append(result)
        self._counts.append(count)
        self.restart(step)
        return result

    def hosts(self) -> dict[str, float]:
        """The sign of life of every process at the last row, as `name/index`: its clock in seconds
        since 1970, its wait for data and its memory; empty where there is one process."""
        return self._hosts if self._run.count > 1 else {}

    def check(self) -> None:
        """Ends a run whose figures have ceased to be finite.

        Raises:
            UserError: the last row has such a step.
        """
        if self._problem:
            raise UserError(self._problem)

    def summary(self) -> str:
        """What this command did, in a few lines; empty where it did no step."""
        if not self._rows:
            return ""
        counts = np.array(self._counts)
        column = lambda name: np.array([row.get(name, math.nan) for row in self._rows])
        steps, seconds = int(counts.sum()), column("step_s") * counts
        whole = time.perf_counter() - self._began
        waited = float((column("data_wait_s") * counts).sum() / seconds.sum())
        # The first row has the compiling in it.
        typical = float(np.median(column("step_s")[1:] if len(counts) > 1 else column("step_s")))
        speed = self._batch_size / typical
        lines = [
            f"{steps} steps in {_clock(seconds.sum())}, the first with its compiling, of "
            f"{_clock(whole)} with saving and evaluating",
            f"step {typical:.4g} s, {speed:.1f} images/s (medians); {waited:.1%} of the time went "
            "into cutting batches",
            f"gradient norm {np.nanmedian(column('grad_norm')):.4g} (median); "
            f"{int(column('nonfinite_steps').sum())} steps not finite",
        ]
        if "device_memory_peak_gib" in self._rows[-1]:
            peak = np.nanmax(column("device_memory_peak_gib"))
            lines.append(f"fullest device {peak:.2f} GiB")
        return "\n".join(lines)

    def _means(self, rows: list[dict[str, np.ndarray]], step: int) -> dict[str, float]:
        values = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
        finite = np.all([np.isfinite(value) for value in values.values()], axis=0)
        if not finite.all():
            bad = sorted(name for name, value in values.items() if not np.isfinite(value).all())
            first = step - len(rows) + 1 + int(np.argmin(finite))
            self._problem = (
                f"training stopped: {', '.join(bad)} is not finite at step {first}; the last "
                "checkpoint is from before. Lower optimizer.learning_rate, or look at the data"
            )
        means = {name: float(value.mean()) for name, value in values.items()}
        return means | {"nonfinite_steps": float(np.count_nonzero(~finite))}


def _memory() -> dict[str, float]:
    """Of this process and its fullest device, in GiB; what the system does not tell is left out."""
    result = {}
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        pages = int(statistics.read_text().split()[1])
        result["host_memory_gib"] = pages * os.sysconf("SC_PAGE_SIZE") / GIB
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    for name, key in (
        ("device_memory_gib", "bytes_in_use"),
        ("device_memory_peak_gib", "peak_bytes_in_use"),
    ):
        values = [stat[key] for stat in stats if key in stat]
        if values:
            result[name] = max(values) / GIB
    return result


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
