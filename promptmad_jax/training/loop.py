"""The training loop: batch, step, log, save, evaluate, in this order."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from promptmad_jax.runtime.checkpoint import Checkpoints
from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.cpu.memory import finish_call
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.preemption import Preemption
from promptmad_jax.training.config import TrainConfig, evaluates_at
from promptmad_jax.training.log import TrainLog
from promptmad_jax.training.state import TrainState, Weights
from promptmad_jax.training.update import Metrics


class Task(NamedTuple):
    """The parts of a training step and of an evaluation.

    Attributes:
        update: (state, batch) to the next state and its metrics.
        batch: number of a step, from 0, to its global batch.
        evaluate: state to its metrics, during training.
    """

    update: Callable[[TrainState, Any], tuple[TrainState, Metrics]]
    batch: Callable[[int], Any]
    evaluate: Callable[[TrainState], Mapping[str, float]]


def train_loop(
    state: TrainState,
    task: Task,
    config: TrainConfig,
    checkpoints: Checkpoints,
    log: TrainLog,
    preemption: Preemption,
) -> TrainState:
    """Trains from `state.step` to `config.steps`; saves and returns the last state.

    The caller evaluates the last state. A step is saved before it is evaluated; a run that was
    stopped in between evaluates first when it resumes.

    Raises:
        UserError: a loss is not finite, or the last state could not be saved.
        Preempted: a signal asked to stop; the state after the current step is saved.
    """
    begin, steps = int(state.step), config.steps

    def evaluate(step: int) -> None:
        with preemption.released():
            log.evaluation(step, task.evaluate(state))

    with preemption.held():
        if 0 < begin < steps and evaluates_at(config, begin) and log.lacks_evaluation(begin):
            evaluate(begin)
        for step in range(begin + 1, steps + 1):
            batch = log.before(step, lambda step=step: task.batch(step - 1))
            state, metrics = task.update(state, batch)
            finish_call(metrics, step - begin)
            log.after(step, metrics)
            last = step == steps
            stopping = preemption.reached() and not last
            evaluating = not last and evaluates_at(config, step)
            saving = last or stopping or evaluating or step % config.checkpoint_every == 0
            if saving or step % config.log_every == 0:
                log.row(step)
            if saving:
                checkpoints.save(step, state)
                log.restart(step)
            log.report_failures(checkpoints, step)
            if stopping:
                log.finish(checkpoints, step)
                saved = checkpoints.latest_step() or 0
                preemption.leave(f" after step {step} of {steps} (that of {saved} is saved)")
            if evaluating:
                evaluate(step)
        _save_last(state, checkpoints, log)
    log.say_summary()
    return state


def _save_last(state: TrainState, checkpoints: Checkpoints, log: TrainLog) -> None:
    step = int(state.step)
    log.finish(checkpoints, step)
    if checkpoints.latest_step() != step:
        checkpoints.save(step, state)
        log.finish(checkpoints, step)
    _check_saved(checkpoints, step)


def save_untrained(state: TrainState | Weights, checkpoints: Checkpoints) -> None:
    """Saves the state of a run without training steps.

    Raises:
        UserError: it could not be saved.
    """
    checkpoints.save(int(state.step), state)
    checkpoints.wait()
    for failure in checkpoints.failures():
        warn(f"the checkpoint of step {failure.step} could not be saved: {failure.reason}")
    _check_saved(checkpoints, int(state.step))


def _check_saved(checkpoints: Checkpoints, step: int) -> None:
    if checkpoints.latest_step() != step:
        raise UserError(
            f"the last state could not be saved in {checkpoints.directory}: see the warning above, "
            f"make room, and run the same command again, which resumes from step "
            f"{checkpoints.latest_step() or 0}"
        )
