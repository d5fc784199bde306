"""Reports of a training run: metrics, progress, profile, and failed saves."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, TypeVar

from etils import epath

from promptmad_jax.runtime.checkpoint import Checkpoints
from promptmad_jax.runtime.console import Progress, say, warn
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.metrics_log import METRICS_FILE, read_metrics
from promptmad_jax.runtime.processes import gather_objects, this_run
from promptmad_jax.runtime.profiler import NO_TRACE, StepTrace
from promptmad_jax.runtime.writers import open_writers
from promptmad_jax.training.config import TrainConfig
from promptmad_jax.training.monitor import Monitor
from promptmad_jax.training.update import Metrics

T = TypeVar("T")


class TrainLog(ExitStack):
    """The log of a run from the step where it starts or resumes; a context manager.

    Args:
        directory: the run's working directory.
        settings: its whole configuration, for the writers.
        config: its `steps` are those of the whole run.
        step: number of finished steps.
    """

    def __init__(
        self,
        directory: epath.Path,
        settings: Mapping[str, Any],
        config: TrainConfig,
        step: int,
        trace: StepTrace = NO_TRACE,
    ):
        super().__init__()
        self._path, self._trace = directory / METRICS_FILE, trace
        self._began: float | None = None
        self._progress = Progress(config.steps, step, config.batch_size)
        self._writers = open_writers(config.writers, directory, settings, step)
        self._monitor = Monitor(config.batch_size, step, this_run())
        self.callback(self._writers.close)
        self.enter_context(self._progress)
        self.enter_context(self._trace)

    def before(self, step: int, cut_batch: Callable[[], T]) -> T:
        """Cuts the batch of a step, timing it; the first step then compiles."""
        self._trace.before(step)
        batch = self._monitor.wait_for(cut_batch)
        if self._began is None:
            say("compiling the training step, which can take minutes")
            self._began, self._first = time.monotonic(), step
        return batch

    def after(self, step: int, metrics: Metrics) -> None:
        """Collects the metrics of a step, which stay on the device until the next row."""
        self._monitor.add(metrics)
        self._trace.after(step, metrics)
        if step == self._first:
            say(f"compiled in {time.monotonic() - self._began:.0f} s; training")
        self._progress.step(step)

    def row(self, step: int) -> None:
        """Writes the means since the last row, and the state of each of several processes.

        Raises:
            UserError: a loss or gradient is not finite.
        """
        row = self._monitor.row(step)
        self._progress.loss(row["loss"])
        self._writers.write(step, row)
        if self._monitor.hosts:
            self._writers.write(step, self._monitor.hosts, kind="host")
        if self._monitor.problem:
            raise UserError(self._monitor.problem)

    def restart(self, step: int) -> None:
        """Excludes the time since the last row, spent on saving or evaluating, from the rates."""
        self._monitor.restart(step)
        self._progress.pause()

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the metrics of an evaluation."""
        self._writers.write(step, metrics, kind="eval")
        self.restart(step)

    def lacks_evaluation(self, step: int) -> bool:
        """Returns True if the evaluation of a step is not in the log of process 0."""
        logged = has_evaluation(self._path, step)
        return not gather_objects(this_run(), logged)[0]

    def report_failures(self, checkpoints: Checkpoints, step: int) -> None:
        """Warns of saves that failed; training goes on without them."""
        for failure in checkpoints.failures():
            warn(
                f"the checkpoint of step {failure.step} could not be saved: {failure.reason}; "
                "training goes on, and the older ones are kept"
            )
            self._writers.write(step, {"failed_save": failure.step}, kind="fault")

    def finish(self, checkpoints: Checkpoints, step: int) -> None:
        """Waits for the last save, and flushes the rows."""
        checkpoints.wait()
        self.report_failures(checkpoints, step)
        self._writers.flush()

    def say_summary(self) -> None:
        """Prints a summary of the steps done, if any, below the last state of the progress."""
        self._progress.close()
        if summary := self._monitor.summary():
            say(summary)


def has_evaluation(path: epath.Path, step: int) -> bool:
    """Returns True if a `metrics.jsonl` has the evaluation of a step."""
    return any(row["kind"] == "eval" and row["step"] == step for row in read_metrics(path))
