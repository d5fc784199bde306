"""A whole training run: data, parts, loop, then its evaluation and report."""

import json

import jax
import numpy as np

from promptmad_jax.config import Config, to_dict
from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.data.pipeline import BatchOrder, Source, TrainArrays, make_source
from promptmad_jax.data.textures import load_textures
from promptmad_jax.evaluation.inference import MapMaker
from promptmad_jax.evaluation_run import calibrate_state, evaluate_state, finish
from promptmad_jax.experiment import (
    Experiment,
    Splits,
    build_experiment,
    class_prompts,
    class_text,
    load_splits,
)
from promptmad_jax.resume import check_config, check_data, check_length
from promptmad_jax.runtime.checkpoint import Checkpoints
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import write_text_atomic
from promptmad_jax.runtime.logging import Progress, read_metrics, say, warn
from promptmad_jax.runtime.manifest import write_manifest
from promptmad_jax.runtime.mesh import partition_rules
from promptmad_jax.runtime.preemption import Preemption
from promptmad_jax.runtime.processes import gather_objects, is_writer, this_run
from promptmad_jax.runtime.trace import StepTrace
from promptmad_jax.runtime.writers import open_writers
from promptmad_jax.training.feature_cache import load_clean_features
from promptmad_jax.training.loop import evaluates_at, total_steps, train_loop
from promptmad_jax.training.optimizer import make_optimizer, make_schedule
from promptmad_jax.training.state import TrainState, abstract_state, create_state
from promptmad_jax.training.step import make_train_step
from promptmad_jax.workdir import Workdir


def run_training(config: Config, workdir: str, profile: tuple[int, int] | None = None) -> dict:
    """Trains, or resumes, to the end; evaluates; writes the report. Returns the metrics.

    Args:
        profile: first and last step to be traced into `profile/`.

    Raises:
        Preempted: the machine is about to be taken away; the same call goes on later.
    """
    files = Workdir(workdir)
    trace = StepTrace(files.path / "profile", profile)
    check_config(config, files)
    with Preemption() as preemption:
        splits = load_splits(config)
        check_data(config, files, splits.train.fingerprint, len(splits.train))
        names = splits.train.class_names
        experiment = build_experiment(config, names, class_text(config, names))
        check_batch(config, experiment.mesh.size)
        maker = experiment.map_maker(class_prompts(splits.train, config.eval.prompt_index))
        checkpoints = files.checkpoints(config.train.keep, config.train.keep_every)
        try:
            state = _start(experiment, splits.train, files, checkpoints)
            # Only now: a run that is refused must leave what was there as it was.
            checkpoints.write_config(to_dict(config))
            _describe(experiment, maker, splits, files)
            state = _train(experiment, state, maker, splits, files, checkpoints, preemption, trace)
        finally:
            checkpoints.close()
        result = finish(experiment, maker, state, splits, files, files)
        _log_last(config, files, int(state.step), result)
    return result


def _log_last(config: Config, files: Workdir, step: int, result: dict) -> None:
    """Logs the last evaluation, unless the run was complete before and has it."""
    if _has_evaluation(files, step):
        return
    writer = open_writers(config.train.writers, files.path, to_dict(config), step)
    writer.write(step, _defined(result["mean"]), kind="eval")
    writer.close()


def _has_evaluation(files: Workdir, step: int) -> bool:
    return any(row["kind"] == "eval" and row["step"] == step for row in read_metrics(files.log))


def _defined(means: dict) -> dict[str, float]:
    return {name: value for name, value in means.items() if isinstance(value, float)}


def _describe(experiment: Experiment, maker: MapMaker, splits: Splits, files: Workdir) -> None:
    """Writes the bank and the manifest."""
    config, train = experiment.config, splits.train
    if not is_writer():
        return
    files.write_bank(train.class_names, maker.prompts, experiment.text)
    write_manifest(
        files.manifest,
        to_dict(config),
        config.train.seed,
        train.fingerprint,
        experiment.mesh,
        {
            "classes": list(train.class_names),
            "train_images": len(train.images),
            "held_out_images": len(splits.held.images),
            "test_images": len(splits.test.images),
            "test_fingerprint": splits.test.fingerprint,
        },
    )


def _optimizer(config: Config, num_images: int):
    """Total steps, schedule and optimizer."""
    steps, per_epoch = total_steps(config.train, num_images)
    schedule = make_schedule(config.optimizer, steps, per_epoch)
    return steps, schedule, make_optimizer(config.optimizer, schedule)


def _start(
    experiment: Experiment, train: ImageSet, files: Workdir, checkpoints: Checkpoints
) -> TrainState:
    """A fresh state, or the newest checkpoint that is whole."""
    config = experiment.config
    steps, _, tx = _optimizer(config, len(train.images))
    check_length(steps, checkpoints.latest_step() or 0, files)
    state, _ = create_state(
        experiment.detector.network,
        tx,
        config.train.seed,
        experiment.mesh,
        partition_rules(config.mesh),
    )
    found = checkpoints.resume(abstract_state(state))
    if found is None:
        return state
    say(f"resumed from step {found[0]} of {steps}")
    return found[1]


def _train(
    experiment: Experiment,
    state: TrainState,
    maker: MapMaker,
    splits: Splits,
    files: Workdir,
    checkpoints: Checkpoints,
    preemption: Preemption,
    trace: StepTrace,
) -> TrainState:
    config, mesh, train = experiment.config, experiment.mesh, splits.train
    steps, schedule, tx = _optimizer(config, len(train.images))
    if int(state.step) >= steps:
        return state
    shardings = jax.tree.map(lambda x: x.sharding, state)
    textures = load_textures(config.data.texture_dir, config.data.image_size, train.images)
    source = _source(experiment, train, textures)
    order = BatchOrder(config.train.seed, train.class_ids, config.train.batch_size, len(textures))
    step_function = make_train_step(
        experiment.detector, tx, schedule, config.pseudo_anomaly, config.loss, mesh, shardings
    )

    def evaluate(state: TrainState, step: int) -> dict[str, float]:
        calibration = calibrate_state(experiment, maker, state, splits)
        result = evaluate_state(experiment, maker, state, splits, calibration)
        _keep_evaluation(files, step, result)
        return _defined(result["mean"])

    writer = open_writers(config.train.writers, files.path, to_dict(config), int(state.step))
    try:
        with Progress(steps, int(state.step), config.train.batch_size) as progress, trace:
            return train_loop(
                state,
                step_function,
                experiment.frozen,
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


def _source(experiment: Experiment, train: ImageSet, textures: np.ndarray) -> Source:
    config = experiment.config
    features = load_clean_features(
        f"{config.data.data_dir}/feature_cache",
        experiment.detector,
        experiment.frozen,
        train,
        config.train.fine_dtype,
        experiment.mesh,
    )
    arrays = TrainArrays(train.images, textures, train.class_ids, features)
    return make_source(arrays, experiment.mesh, config.train.resident)


def check_batch(config: Config, devices: int) -> None:
    """Raises UserError where the batch does not divide over the devices, with sizes that do."""
    size = config.train.batch_size
    if size % devices:
        below, above = size // devices * devices, -(-size // devices) * devices
        near = f"{below} or {above}" if below else f"{above}"
        raise UserError(
            f"train.batch_size={size} does not divide over {devices} devices; {near} does"
        )
