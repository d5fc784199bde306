"""The training loop: batch, step, log, evaluate, checkpoint, in this order."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax

from promptmad_jax.data.pipeline import BatchOrder, Source
from promptmad_jax.models.detector import Frozen
from promptmad_jax.runtime.checkpoint import Checkpoints
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.logging import MetricsWriter, Progress
from promptmad_jax.training.state import TrainState
from promptmad_jax.training.step import Metrics, StepFunction

Evaluate = Callable[[TrainState, int], dict[str, float]]


@dataclass(frozen=True)
class TrainConfig:
    """Length and rhythm of a run, in steps unless it says epochs.

    Attributes:
        batch_size: global. epochs: passes over the training images; steps > 0 overrides it.
        eval_every: 0 evaluates at the end only. eval_at: further steps to evaluate at.
        checkpoint_every: the last step is always saved. keep: newest checkpoints kept.
        resident: keep images and features on the devices; "auto" does so on accelerators.
        fine_dtype: of the cached fine levels, "bfloat16" or "float32".
    """

    batch_size: int = 8
    epochs: int = 1000
    steps: int = 0
    seed: int = 0
    log_every: int = 50
    eval_every: int = 0
    eval_at: tuple[int, ...] = ()
    checkpoint_every: int = 1000
    keep: int = 3
    resident: str = "auto"
    fine_dtype: str = "bfloat16"


def total_steps(config: TrainConfig, num_images: int) -> tuple[int, int]:
    """Number of steps of the whole run, and of an epoch."""
    per_epoch = math.ceil(num_images / config.batch_size)
    return config.steps or config.epochs * per_epoch, per_epoch


class _Window:
    """Metrics since the last log line; they stay on the device until read."""

    def __init__(self):
        self._rows: list[Metrics] = []

    def add(self, metrics: Metrics) -> None:
        self._rows.append(metrics)

    def mean(self, step: int) -> dict[str, float]:
        rows, self._rows = jax.device_get(self._rows), []
        means = {name: float(sum(row[name] for row in rows) / len(rows)) for name in rows[0]}
        bad = sorted(name for name, value in means.items() if not math.isfinite(value))
        if bad:
            first = next(i for i, row in enumerate(rows) if not math.isfinite(sum(row.values())))
            raise UserError(
                f"training stopped: {', '.join(bad)} is not finite at step "
                f"{step - len(rows) + first + 1}; the last checkpoint is from before. "
                "Lower optimizer.learning_rate, or look at the data"
            )
        return means


class _Clock:
    """Speed since the last reading; evaluation and saving are not counted."""

    def __init__(self, step: int):
        self.restart(step)

    def restart(self, step: int) -> None:
        self._step, self._time = step, time.perf_counter()

    def steps_per_s(self, step: int) -> float:
        speed = (step - self._step) / (time.perf_counter() - self._time)
        self.restart(step)
        return speed


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
    writer: MetricsWriter,
    progress: Progress,
    evaluate: Evaluate,
) -> TrainState:
    """Trains from `state.step` to `steps` and returns the last state, which is saved.

    The last step is evaluated by the caller. Evaluation comes before the checkpoint of the same
    step and does not change the state; so a run that is killed and resumed does what an
    uninterrupted run does.

    Raises:
        UserError: a loss is not finite.
    """
    window, clock = _Window(), _Clock(int(state.step))
    for step in range(int(state.step) + 1, steps + 1):
        state, metrics = step_function(state, frozen, source(order(step - 1)))
        window.add(metrics)
        last = step == steps
        saving = last or step % config.checkpoint_every == 0
        evaluating = not last and (
            step in config.eval_at or (config.eval_every and step % config.eval_every == 0)
        )
        if saving or evaluating or step % config.log_every == 0:
            means = window.mean(step)
            progress.update(step, means["loss"])
            writer.write(
                step, means | {"images_per_s": config.batch_size * clock.steps_per_s(step)}
            )
        if evaluating:
            writer.write(step, evaluate(state, step), kind="eval")
        if saving:
            checkpoints.save(step, state)
        if evaluating or saving:
            clock.restart(step)
    checkpoints.wait()
    return state
