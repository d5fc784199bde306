"""A whole training run: data, parts, loop, then its evaluation and report."""

import dataclasses
import json
from collections.abc import Callable

import jax

from promptmad_jax.config import Config, check_batch
from promptmad_jax.methods.method import Training, open_method
from promptmad_jax.reporting.warnings import setting_warnings
from promptmad_jax.runs.resume import check_run, check_settings
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime import outputs
from promptmad_jax.runtime.checkpoint import Checkpoints
from promptmad_jax.runtime.console import say, warn
from promptmad_jax.runtime.cpu.memory import compute_in_this_thread
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import check_room, is_local, write_text_atomic
from promptmad_jax.runtime.mesh import partition_rules
from promptmad_jax.runtime.preemption import Preemption
from promptmad_jax.runtime.processes import claim_jointly, is_writer, jointly, this_run
from promptmad_jax.runtime.profiler import StepTrace
from promptmad_jax.runtime.writers import open_writers
from promptmad_jax.training.config import total_steps
from promptmad_jax.training.log import TrainLog, has_evaluation
from promptmad_jax.training.loop import Task, save_untrained, train_loop
from promptmad_jax.training.optimizer import Optimizer, make_optimizer
from promptmad_jax.training.state import TrainState, abstract_state, create_state


def run_training(
    config: Config,
    workdir: str,
    profile: tuple[int, int] | None = None,
    prepare: Callable[[Workdir], None] | None = None,
) -> dict:
    """Trains, or resumes, to the end; evaluates; writes the report. Returns the metrics.

    Args:
        profile: first and last step to be traced into `profile/`.
        prepare: writes what the run's folder must hold before the data are read.

    Raises:
        UserError: the data, the settings or the run in `workdir` do not allow it.
        Preempted: the machine is about to be taken away; the same call goes on later.
    """
    compute_in_this_thread()
    with Preemption() as preemption, claim_jointly(workdir, outputs.TRAIN, "--workdir"):
        files = Workdir(workdir)
        jointly(this_run(), lambda: prepare(files) if prepare and is_writer() else None)
        return _train(config, files, profile, preemption)


def _train(
    config: Config, files: Workdir, profile: tuple[int, int] | None, preemption: Preemption
) -> dict:
    trace = StepTrace(files.path / "profile", profile)
    # Before the data are read, which can take long.
    check_settings(config, files)
    for warning in setting_warnings(to_dict(config), config.train.steps):
        warn(warning)
    say(f"reading the {f'data set {config.data.dataset}' if config.data.dataset else 'images'}")
    training = open_method(config).training(files)
    check_run(config, files, training)
    if training.num_images:
        check_batch(config, training.mesh.size)
    steps, per_epoch = total_steps(config.train, training.num_images)
    optimizer = make_optimizer(config.optimizer, steps, per_epoch)
    checkpoints = files.checkpoints(config.train.keep, config.train.keep_every)
    try:
        state = _start(training, optimizer, checkpoints, steps)
        _check_room(files, state)
        # Only now: a run that is refused must leave what was there as it was.
        checkpoints.write_config(to_dict(config))
        training.describe(files)
        if int(state.step) < steps:
            say(f"training to step {steps}")
            task = _task(training, optimizer, state, files)
            loop_config = dataclasses.replace(config.train, steps=steps)
            settings, step = to_dict(config), int(state.step)
            with TrainLog(files.path, settings, loop_config, step, trace) as log:
                state = train_loop(state, task, loop_config, checkpoints, log, preemption)
        elif checkpoints.latest_step() is None:
            save_untrained(state, checkpoints)
    finally:
        checkpoints.close()
    say("evaluating")
    result = training.finish(state, files)
    _log_last(config, files, int(state.step), result)
    return result


def _start(
    training: Training, optimizer: Optimizer, checkpoints: Checkpoints, steps: int
) -> TrainState:
    """A fresh state, or the newest checkpoint that is whole."""
    config = training.config
    rules = partition_rules(config.mesh)
    state, _ = create_state(training.network, optimizer.tx, config.train.seed, training.mesh, rules)
    found = checkpoints.resume(abstract_state(state))
    if found is None:
        return state
    say(f"resumed from step {found[0]} of {steps}")
    return found[1]


def _check_room(files: Workdir, state: TrainState) -> None:
    """Raises UserError if not even one checkpoint fits on the disk."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state) if hasattr(leaf, "nbytes"))
    try:
        if is_writer() and is_local(files.path):
            check_room(files.path, size)
    except OSError as error:
        raise UserError(
            f"{files.path} has no room for a checkpoint ({error.strerror}): make room, or give "
            "another --workdir"
        ) from error


def _task(training: Training, optimizer: Optimizer, state: TrainState, files: Workdir) -> Task:
    """The loop's task; reads and caches the arrays that batches are cut from."""
    order, source = training.batches()
    step = training.step_function(optimizer, jax.tree.map(lambda x: x.sharding, state))
    frozen = training.frozen

    def evaluate(state: TrainState) -> dict[str, float]:
        result = training.evaluate(state)
        _write_evaluation(files, int(state.step), result)
        return _defined(result["mean"])

    return Task(
        lambda state, batch: step(state, frozen, batch),
        lambda number: source(order(number)),
        evaluate,
    )


def _write_evaluation(files: Workdir, step: int, result: dict) -> None:
    if not is_writer():
        return
    path = files.path / "evaluations" / f"step_{step}.json"
    try:
        write_text_atomic(path, json.dumps(result, indent=2) + "\n")
    except OSError as error:
        warn(f"{path} could not be written: {error}; training goes on")


def _log_last(config: Config, files: Workdir, step: int, result: dict) -> None:
    """Logs the last evaluation at the step that was evaluated, unless the log has it."""
    evaluated = result["protocol"]["step"]
    if not has_evaluation(files.log, evaluated):
        writers = open_writers(config.train.writers, files.path, to_dict(config), step)
        writers.write(evaluated, _defined(result["mean"]), kind="eval")
        writers.close()


def _defined(means: dict) -> dict[str, float]:
    return {name: value for name, value in means.items() if isinstance(value, float)}
