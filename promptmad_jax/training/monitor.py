"""Speed, losses and memory of a running training, without making accelerators wait."""

import math
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from promptmad_jax.runtime.processes import Communicator, gather_objects
from promptmad_jax.training.update import Metrics

T = TypeVar("T")
GIB = 2.0**30


class Monitor:
    """Measures the steps since the last row and since the start.

    Every process calls `row` at the same steps. Only `row` waits for the devices and exchanges data
    between processes.

    Args:
        batch_size: global batch size.
        step: number of finished steps.
        run: the processes of the run.

    Attributes:
        hosts: of the last row, the time since 1970, wait for data and memory of every process, as
            `name/index`; empty for a single process.
        problem: describes a step of the last row that is not finite, or "".
    """

    def __init__(self, batch_size: int, step: int, run: Communicator):
        self._batch_size, self._run = batch_size, run
        self.hosts: dict[str, float] = {}
        self.problem = ""
        self._metrics: list[Metrics] = []
        self._rows: list[dict[str, float]] = []
        self._began = time.perf_counter()
        self.restart(step)

    def restart(self, step: int) -> None:
        """Starts the clock after `step`, so that saving and evaluating count for no step."""
        self._step, self._time, self._waited = step, time.perf_counter(), 0.0

    def wait_for(self, batch: Callable[[], T]) -> T:
        """Calls `batch` and adds the time it takes to the wait for data."""
        begin = time.perf_counter()
        result = batch()
        self._waited += time.perf_counter() - begin
        return result

    def add(self, metrics: Metrics) -> None:
        """Collects the metrics of a step, which come to the host while the next steps run."""
        for value in metrics.values():
            value.copy_to_host_async()
        self._metrics.append(metrics)

    def row(self, step: int) -> dict[str, float]:
        """Returns the means since the last row.

        They are the metrics of the step; `step_s`; `images_per_s` of all processes; `data_wait_s`
        per step, of the process that took longest to cut its batches, which costs accelerators no
        time while it is less than `step_s`; `nonfinite_steps`, the number of steps with a NaN or
        infinite loss or gradient; and, if the devices report them, `device_memory_gib` and
        `device_memory_peak_gib` of the fullest.
        """
        rows, self._metrics = jax.device_get(self._metrics), []
        count = step - self._step
        seconds = (time.perf_counter() - self._time) / count
        own = {"time": time.time(), "data_wait_s": self._waited / count} | _memory()
        hosts = gather_objects(self._run, own)
        if len(hosts) > 1:
            self.hosts = {f"{k}/{i}": v for i, host in enumerate(hosts) for k, v in host.items()}
        result = self._means(rows, step)
        result |= {"images_per_s": self._batch_size / seconds, "step_s": seconds}
        shared = [name for name in own if name not in ("time", "host_memory_gib")]
        result |= {name: max(host[name] for host in hosts) for name in shared}
        self._rows.append(result | {"steps": count})
        self.restart(step)
        return result

    def summary(self) -> str:
        """Describes the steps done in a few lines; "" without any."""
        if not self._rows:
            return ""
        column = lambda name: np.array([row.get(name, math.nan) for row in self._rows])
        counts = column("steps")
        seconds = column("step_s") * counts
        whole = time.perf_counter() - self._began
        waited = float((column("data_wait_s") * counts).sum() / seconds.sum())
        # The first row includes compilation.
        typical = float(np.median(column("step_s")[1 if len(counts) > 1 else 0 :]))
        speed = self._batch_size / typical
        lines = [
            f"{counts.sum()} steps in {_clock(seconds.sum())}, including compilation, of "
            f"{_clock(whole)} with saving and evaluation",
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
            self.problem = (
                f"training stopped: {', '.join(bad)} is not finite at step {first}; the last "
                "checkpoint is older. Lower optimizer.learning_rate, or check the data"
            )
        means = {name: float(value.mean()) for name, value in values.items()}
        return means | {"nonfinite_steps": float(np.count_nonzero(~finite))}


def _memory() -> dict[str, float]:
    """Memory of this process and its fullest device in GiB, as far as the system reports it."""
    result = {}
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        pages = int(statistics.read_text().split()[1])
        result["host_memory_gib"] = pages * os.sysconf("SC_PAGE_SIZE") / GIB
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    for name in ("", "peak_"):
        values = [stat[f"{name}bytes_in_use"] for stat in stats if f"{name}bytes_in_use" in stat]
        if values:
            result[f"device_memory_{name}gib"] = max(values) / GIB
    return result


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
