"""The training loop: batch, step, log, evaluate, checkpoint, in this order."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NoReturn

from promptmad_jax.data.pipeline import BatchOrder, Source
from promptmad_jax.models.reconstruction.detector import Frozen
from promptmad_jax.runtime.checkpoint import Checkpoints
from promptmad_jax.runtime.console import Progress, say, warn
from promptmad_jax.runtime.cpu.dispatch import Calls
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.field_types import NonNegativeInt, PositiveInt
from promptmad_jax.runtime.preemption import Preempted, Preemption
from promptmad_jax.runtime.processes import this_run
from promptmad_jax.runtime.profiler import NO_TRACE, StepTrace
from promptmad_jax.runtime.writers import Writers
from promptmad_jax.training.monitor import Monitor
from promptmad_jax.training.state import TrainState
from promptmad_jax.training.step import StepFunction

Evaluate = Callable[[TrainState, int], dict[str, float]]


@dataclass(frozen=True)
class TrainConfig:
    """Length and rhythm of a run, in steps unless it says epochs.

    Attributes:
        batch_size: global batch size, over all devices.
        epochs: passes over the training images.
        steps: length in steps; above 0 it overrides epochs.
        seed: of the initialisation, the order of the data and the augmentation.
        log_every: steps between log rows.
        eval_every: steps between evaluations; 0 evaluates at the end only.
        eval_at: further steps to evaluate at.
        checkpoint_every: steps between checkpoints; the last step and those that are evaluated are
            saved as well.
        keep: newest checkpoints kept.
        keep_every: checkpoints at multiples of it are kept in addition; 0 for none.
        resident: keep images and features on the devices; "auto" does so on accelerators.
        fine_dtype: of the cached features: the segmentor's fine levels, and CLIP's image features
            of a zero-shot run.
        cache_images: compute CLIP's image features once, where nothing of the image tower is
            trained.
        writers: destinations of the figures in addition to metrics.jsonl and TensorBoard: "wandb",
            or MODULE:FACTORY; see runtime/writers.py.
    """

    batch_size: PositiveInt = 8
    epochs: PositiveInt = 1000
    steps: NonNegativeInt = 0
    seed: NonNegativeInt = 0
    log_every: PositiveInt = 50
    eval_every: NonNegativeInt = 0
    eval_at: tuple[NonNegativeInt, ...] = ()
    checkpoint_every: PositiveInt = 1000
    keep: PositiveInt = 3
    keep_every: NonNegativeInt = 0
    resident: Literal["auto", "yes", "no"] = "auto"
    fine_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    cache_images: bool = True
    writers: tuple[str, ...] = ()


def evaluates_at(config: TrainConfig, step: int) -> bool:
    """Whether this step, unless it is the last, is followed by an evaluation."""
    return step in config.eval_at or bool(config.eval_every and step % config.eval_every == 0)


def total_steps(config: TrainConfig, num_images: int) -> tuple[int, int]:
    """Number of steps of the whole run, and of an epoch."""
    per_epoch = math.ceil(num_images / config.batch_size)
    return config.steps or config.epochs * per_epoch, per_epoch


def train_loop(
    state: TrainState,
    step_function: StepFunction,
    frozen: Frozen,
    order: BatchOrder,
    source: Source,
    config: TrainConfig,
    steps: int,
    *,
    checkpoints: Checkpoints,
    writer: Writers,
    progress: Progress,
    preemption: Preemption,
    evaluate: Evaluate,
    evaluate_first: bool = False,
    trace: StepTrace = NO_TRACE,
) -> TrainState:
    """Trains from `state.step` to `steps` and returns the last state, which is saved.

    The last step is evaluated by the caller. A step is saved before it is evaluated; a run that was
    stopped in the middle of that does it first when it goes on (`evaluate_first`).

    Raises:
        UserError: a loss is not finite, or the last state could not be saved.
        Preempted: told to stop; the state after the step that was running is saved.
    """
    monitor = Monitor(config.batch_size, int(state.step), this_run())
    log, calls = _Log(writer, progress, checkpoints, monitor), Calls()

    def evaluate_now(step: int) -> None:
        with preemption.released():
            writer.write(step, evaluate(state, step), kind="eval")
        monitor.restart(step)

    with preemption.held():
        if evaluate_first:
            evaluate_now(int(state.step))
        for step in range(int(state.step) + 1, steps + 1):
            # First of all: while the batch is cut, the last step's arrays are freed.
            calls.wait()
            trace.before(step)
            batch = monitor.wait_for(lambda step=step: source(order(step - 1)))
            state, metrics = step_function(state, frozen, batch)
            calls.made(metrics)
            monitor.add(metrics)
            trace.after(step, metrics)
            last = step == steps
            stopping = preemption.reached() and not last
            evaluating = not last and evaluates_at(config, step)
            saving = last or stopping or evaluating or step % config.checkpoint_every == 0
            if saving or step % config.log_every == 0:
                log.write(step)
            if saving:
                checkpoints.save(step, state)
                monitor.restart(step)
            log.report_failures(step)
            if stopping:
                _leave(step, steps, checkpoints, log)
            if evaluating:
                evaluate_now(step)
        _save_last(steps, state, checkpoints, log)
    say(monitor.summary())
    return state


class _Log:
    """Everything that the loop tells: rows, progress, and saves that failed."""

    def __init__(
        self, writer: Writers, progress: Progress, checkpoints: Checkpoints, monitor: Monitor
    ):
        self._writer, self._progress, self._checkpoints = writer, progress, checkpoints
        self._monitor = monitor

    def write(self, step: int) -> None:
        """A row of means since the last one, and one of the processes where there are several."""
        row = self._monitor.row(step)
        self._progress.update(step, row["loss"])
        self._writer.write(step, row)
        hosts = self._monitor.hosts()
        if hosts:
            self._writer.write(step, hosts, kind="host")
        self._monitor.check()

    def report_failures(self, step: int) -> None:
        """Training goes on without a checkpoint, but not in silence."""
        for failure in self._checkpoints.failures():
            warn(
                f"the checkpoint of step {failure.step} could not be saved: {failure.reason}; "
                "training goes on, and the older ones stay"
            )
            self._writer.write(step, {"failed_save": failure.step}, kind="fault")

    def finish(self, step: int) -> None:
        """Waits for the last save, and for the rows."""
        self._checkpoints.wait()
        self.report_failures(step)
        self._writer.flush()


def _leave(step: int, steps: int, checkpoints: Checkpoints, log: _Log) -> NoReturn:
    log.finish(step)
    saved = checkpoints.latest_step() or 0
    say(f"stopped after step {step} of {steps}; the state of step {saved} is saved")
    raise Preempted


def _save_last(steps: int, state: TrainState, checkpoints: Checkpoints, log: _Log) -> None:
    log.finish(steps)
    if checkpoints.latest_step() != steps:
        checkpoints.save(steps, state)
        log.finish(steps)
    check_saved(checkpoints, steps)


def check_saved(checkpoints: Checkpoints, step: int) -> None:
    """Raises UserError where the state of `step` is not the newest that is saved."""
    if checkpoints.latest_step() != step:
        raise UserError(
            f"the last state could not be saved in {checkpoints.directory}: see the warning above, "
            f"make room, and give the same command again, which goes on from step "
            f"{checkpoints.latest_step() or 0}"
        )
