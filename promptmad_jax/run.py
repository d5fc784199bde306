"""A whole training run: data, parts, loop, then its evaluation and report."""

import json

import jax
import numpy as np

from promptmad_jax.config import Config, to_dict
from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.data.pipeline import BatchOrder, HostSource, ResidentSource, Source, TrainArrays
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
from promptmad_jax.runtime.checkpoint import Checkpoints
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import write_text_atomic
from promptmad_jax.runtime.logging import MetricsWriter, Progress, read_metrics
from promptmad_jax.runtime.manifest import write_manifest
from promptmad_jax.training.feature_cache import load_clean_features
from promptmad_jax.training.loop import total_steps, train_loop
from promptmad_jax.training.optimizer import make_optimizer, make_schedule
from promptmad_jax.training.state import TrainState, abstract_state, create_state
from promptmad_jax.training.step import make_train_step
from promptmad_jax.workdir import Workdir


def run_training(config: Config, workdir: str) -> dict:
    """Trains, or resumes, to the end; evaluates; writes the report. Returns the metrics."""
    files = Workdir(workdir)
    splits = load_splits(config)
    names = splits.train.class_names
    experiment = build_experiment(config, names, class_text(config, names))
    _check_batch(config, experiment.mesh.size)
    maker = experiment.map_maker(class_prompts(splits.train, config.eval.prompt_index))
    checkpoints = files.checkpoints(config.train.keep)
    try:
        state = _start(experiment, splits.train, checkpoints)
        # Only now: a run that is refused must leave what was there as it was.
        checkpoints.write_config(to_dict(config))
        _describe(experiment, maker, splits, files)
        state = _train(experiment, state, maker, splits, files, checkpoints)
    finally:
        checkpoints.close()
    result = finish(experiment, maker, state, splits, files, files)
    _log_last(files, int(state.step), result)
    return result


def _log_last(files: Workdir, step: int, result: dict) -> None:
    """Logs the last evaluation, unless the run was complete before and has it."""
    if any(row["kind"] == "eval" and row["step"] == step for row in read_metrics(files.log)):
        return
    writer = MetricsWriter(files.path, step)
    writer.write(step, _defined(result["mean"]), kind="eval")
    writer.close()


def _defined(means: dict) -> dict[str, float]:
    return {name: value for name, value in means.items() if isinstance(value, float)}


def _describe(experiment: Experiment, maker: MapMaker, splits: Splits, files: Workdir) -> None:
    """Writes the bank and the manifest."""
    config, train = experiment.config, splits.train
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


def _start(experiment: Experiment, train: ImageSet, checkpoints: Checkpoints) -> TrainState:
    """A fresh state, or the newest checkpoint."""
    config = experiment.config
    steps, _, tx = _optimizer(config, len(train.images))
    state, _ = create_state(experiment.detector.network, tx, config.train.seed, experiment.mesh)
    latest = checkpoints.latest_step()
    if latest is None:
        return state
    print(f"resumed from step {latest} of {steps}")
    return checkpoints.restore(latest, abstract_state(state))


def _train(
    experiment: Experiment,
    state: TrainState,
    maker: MapMaker,
    splits: Splits,
    files: Workdir,
    checkpoints: Checkpoints,
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
        write_text_atomic(
            files.path / "evaluations" / f"step_{step}.json", json.dumps(result, indent=2) + "\n"
        )
        return _defined(result["mean"])

    writer = MetricsWriter(files.path, int(state.step))
    try:
        with Progress(steps, int(state.step), config.train.batch_size) as progress:
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
                evaluate=evaluate,
            )
    finally:
        writer.close()


def _source(experiment: Experiment, train: ImageSet, textures: np.ndarray) -> Source:
    config = experiment.config
    features = load_clean_features(
        f"{config.data.data_dir}/feature_cache",
        experiment.detector,
        experiment.frozen,
        train,
        config.train.fine_dtype,
    )
    arrays = TrainArrays(train.images, textures, train.class_ids, features)
    resident = {"yes": True, "no": False, "auto": jax.default_backend() != "cpu"}[
        config.train.resident
    ]
    return (ResidentSource if resident else HostSource)(arrays, experiment.mesh)


def _check_batch(config: Config, devices: int) -> None:
    size = config.train.batch_size
    if size % devices:
        below, above = size // devices * devices, -(-size // devices) * devices
        near = f"{below} or {above}" if below else f"{above}"
        raise UserError(
            f"train.batch_size={size} does not divide over {devices} devices; {near} does"
        )
