"""A whole training run: data, parts, loop, then its evaluation and report."""

import json

import jax

from promptmad_jax.config import Config, check_batch
from promptmad_jax.methods.method import Method, open_method
from promptmad_jax.runs.resume import check_config, check_data, check_length
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.checkpoint import Checkpoints
from promptmad_jax.runtime.console import Progress, say, warn
from promptmad_jax.runtime.cpu.dispatch import compute_in_this_thread
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.files import write_text_atomic
from promptmad_jax.runtime.mesh import partition_rules
from promptmad_jax.runtime.metrics_log import read_metrics
from promptmad_jax.runtime.preemption import Preemption
from promptmad_jax.runtime.processes import gather_objects, is_writer, this_run
from promptmad_jax.runtime.profiler import StepTrace
from promptmad_jax.runtime.writers import open_writers
from promptmad_jax.training.loop import check_saved, evaluates_at, total_steps, train_loop
from promptmad_jax.training.optimizer import make_optimizer, make_schedule
from promptmad_jax.training.state import TrainState, abstract_state, create_state


def run_training(config: Config, workdir: str, profile: tuple[int, int] | None = None) -> dict:
    """Trains, or resumes, to the end; evaluates; writes the report. Returns the metrics.

    Args:
        profile: first and last step to be traced into `profile/`.

    Raises:
        Preempted: the machine is about to be taken away; the same call goes on later.
    """
    compute_in_this_thread()
    files = Workdir(workdir)
    trace = StepTrace(files.path / "profile", profile)
    check_config(config, files)
    with Preemption() as preemption:
        method = open_method(config)
        check_data(config, files, method.fingerprint, method.num_images)
        if method.num_images:
            check_batch(config, method.mesh.size)
        checkpoints = files.checkpoints(config.train.keep, config.train.keep_every)
        try:
            state = _start(method, files, checkpoints)
            # Only now: a run that is refused must leave what was there as it was.
            checkpoints.write_config(to_dict(config))
            method.describe(files)
            state = _train(method, state, files, checkpoints, preemption, trace)
        finally:
            checkpoints.close()
        result = method.finish(state, files)
    _log_last(config, files, int(state.step), result)
    return result


def _log_last(config: Config, files: Workdir, step: int, result: dict) -> None:
    """Logs the last evaluation at the step that it is of, unless the log has it."""
    evaluated = result["protocol"]["step"]
    if _has_evaluation(files, evaluated):
        return
    writer = open_writers(config.train.writers, files.path, to_dict(config), step)
    writer.write(evaluated, _defined(result["mean"]), kind="eval")
    writer.close()


def _has_evaluation(files: Workdir, step: int) -> bool:
    return any(row["kind"] == "eval" and row["step"] == step for row in read_metrics(files.log))


def _defined(means: dict) -> dict[str, float]:
    return {name: value for name, value in means.items() if isinstance(value, float)}


def optimizer_of(config: Config, num_images: int):
    """Total steps, schedule and optimizer of a run on so many images."""
    steps, per_epoch = total_steps(config.train, num_images)
    schedule = make_schedule(config.optimizer, steps, per_epoch)
    return steps, schedule, make_optimizer(config.optimizer, schedule)


def _start(method: Method, files: Workdir, checkpoints: Checkpoints) -> TrainState:
    """A fresh state, or the newest checkpoint that is whole."""
    config = method.config
    steps, _, tx = optimizer_of(config, method.num_images)
    check_length(steps, checkpoints.latest_step() or 0, files)
    rules = partition_rules(config.mesh)
    state, _ = create_state(method.network, tx, config.train.seed, method.mesh, rules)
    found = checkpoints.resume(abstract_state(state))
    if found is None:
        return state
    say(f"resumed from step {found[0]} of {steps}")
    return found[1]


def _train(
    method: Method,
    state: TrainState,
    files: Workdir,
    checkpoints: Checkpoints,
    preemption: Preemption,
    trace: StepTrace,
) -> TrainState:
    config = method.config
    steps, schedule, tx = optimizer_of(config, method.num_images)
    if int(state.step) >= steps:
        _keep_untrained(state, checkpoints)
        return state
    shardings = jax.tree.map(lambda x: x.sharding, state)
    order, source = method.batches()
    step_function = method.step_function(tx, schedule, shardings)

    def evaluate(state: TrainState, step: int) -> dict[str, float]:
        result = method.evaluate(state)
        _keep_evaluation(files, step, result)
        return _defined(result["mean"])

    writer = open_writers(config.train.writers, files.path, to_dict(config), int(state.step))
    try:
        with Progress(steps, int(state.step), config.train.batch_size) as progress, trace:
            return train_loop(
                state,
                step_function,
                method.frozen,
                order,
                source,
                config.train,
                steps,
                checkpoints=checkpoints,
                writer=writer,
                progress=progress,
                preemption=preemption,
                evaluate=evaluate,
                evaluate_first=_lacks_evaluation(config, files, int(state.step)),
                trace=trace,
            )
    finally:
        writer.close()


def _keep_untrained(state: TrainState, checkpoints: Checkpoints) -> None:
    """Saves the state of a run without a step, so that it is found as that of any other.

    Raises:
        UserError: it could not be saved.
    """
    if checkpoints.latest_step() is None:
        checkpoints.save(int(state.step), state)
        checkpoints.wait()
        for failure in checkpoints.failures():
            warn(f"the checkpoint of step {failure.step} could not be saved: {failure.reason}")
        check_saved(checkpoints, int(state.step))


def _keep_evaluation(files: Workdir, step: int, result: dict) -> None:
    if not is_writer():
        return
    path = files.path / "evaluations" / f"step_{step}.json"
    try:
        write_text_atomic(path, json.dumps(result, indent=2) + "\n")
    except OSError as error:
        warn(f"{path} could not be written: {error}; training goes on")


def _lacks_evaluation(config: Config, files: Workdir, step: int) -> bool:
    """Whether the run was stopped between saving this step and the end of its evaluation."""
    lacks = evaluates_at(config.train, step) and not _has_evaluation(files, step)
    return gather_objects(this_run(), step > 0 and lacks)[0]
