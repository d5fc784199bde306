"""A trained model at work: restored, calibrated, evaluated, reported, ready to predict."""

import json
from collections.abc import Sequence
from pathlib import Path

from promptmad_jax.config import Config
from promptmad_jax.evaluation.calibration import (
    Calibration,
    CalibrationConfig,
    calibrate,
    spread_over,
)
from promptmad_jax.evaluation.inference import MapMaker
from promptmad_jax.evaluation.original_size import OriginalMasks
from promptmad_jax.evaluation.protocol import Protocol
from promptmad_jax.evaluation.run import class_maps, evaluate_maps
from promptmad_jax.evaluation.scores import write_scores
from promptmad_jax.evaluation.spread import spread
from promptmad_jax.experiment import (
    Experiment,
    Splits,
    build_experiment,
    class_prompts,
    load_splits,
)
from promptmad_jax.reporting.report import Report
from promptmad_jax.reporting.strip import step_source
from promptmad_jax.reporting.tables import format_table
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import write_text_atomic
from promptmad_jax.runtime.logging import read_metrics
from promptmad_jax.serving.predictor import Predictor
from promptmad_jax.training.optimizer import make_optimizer, make_schedule
from promptmad_jax.training.state import TrainState, abstract_state, create_state
from promptmad_jax.workdir import Workdir


def run_evaluation(config: Config, files: Workdir, output: Workdir, prompts: int = 1) -> dict:
    """Evaluates the newest checkpoint of a run and writes metrics and report to `output`.

    Args:
        prompts: how many training images of each class take their turn as its prompt. The figures
            are of the first; `prompts` in metrics.json has the spread over all.
    """
    splits = load_splits(config)
    experiment, maker = restore_experiment(config, files)
    state = restore_state(experiment, files)
    others = []
    for i in range(1, prompts):
        other = experiment.map_maker(class_prompts(splits.train, config.eval.prompt_index + i))
        calibration = calibrate_state(experiment, other, state, splits)
        others.append(evaluate_state(experiment, other, state, splits, calibration))
    return finish(experiment, maker, state, splits, files, output, others)


def load_predictor(workdir: str) -> Predictor:
    """The newest checkpoint of a run, ready for new images; the data set is not needed."""
    files = Workdir(workdir)
    config = files.config()
    calibration = files.read_calibration()
    experiment, maker = restore_experiment(config, files)
    state = restore_state(experiment, files)
    return Predictor(
        maker,
        state.params,
        state.stats,
        experiment.class_names,
        calibration,
        config.eval.fusion,
        config.eval.image_pool,
    )


def restore_experiment(config: Config, files: Workdir) -> tuple[Experiment, MapMaker]:
    """The parts of a run, its text tokens and prompts read from the working directory."""
    class_names, prompts, text = files.read_bank()
    experiment = build_experiment(config, class_names, text)
    return experiment, experiment.map_maker(prompts)


def restore_state(experiment: Experiment, files: Workdir) -> TrainState:
    """The newest checkpoint.

    Raises:
        UserError: there is none.
    """
    config = experiment.config
    checkpoints = files.checkpoints(config.train.keep)
    try:
        latest = checkpoints.latest_step()
        if latest is None:
            raise UserError(
                f"{files.path} has no checkpoint yet; let the training reach "
                f"step {config.train.checkpoint_every}"
            )
        tx = make_optimizer(config.optimizer, make_schedule(config.optimizer, 1, 1))
        state, _ = create_state(experiment.detector.network, tx, config.train.seed, experiment.mesh)
        return checkpoints.restore(latest, abstract_state(state))
    finally:
        checkpoints.close()


def finish(
    experiment: Experiment,
    maker: MapMaker,
    state: TrainState,
    splits: Splits,
    files: Workdir,
    output: Workdir,
    other_prompts: Sequence[dict] = (),
) -> dict:
    """Evaluates the state with everything: writes metrics.json and the report, prints the table.

    Args:
        other_prompts: results of `evaluate_state` with other prompt images.
    """
    calibration = calibrate_state(experiment, maker, state, splits)
    output.write_calibration(calibration, int(state.step))
    report = make_report(experiment, maker, state, output.path / "report")
    result = evaluate_state(experiment, maker, state, splits, calibration, report)
    if other_prompts:
        result["prompts"] = spread([result, *other_prompts])
    write_text_atomic(output.path / "metrics.json", json.dumps(result, indent=2) + "\n")
    write_scores(output.path, report.scores)
    if output.manifest != files.manifest:
        write_text_atomic(output.manifest, files.manifest.read_text())
    manifest = json.loads(output.manifest.read_text())
    page = report.write(result, manifest, read_metrics(files.log))
    print(format_table(result))
    print(f"metrics: {output.path / 'metrics.json'}")
    print(f"report: {page}")
    return result


def calibrate_state(
    experiment: Experiment, maker: MapMaker, state: TrainState, splits: Splits
) -> Calibration:
    """The constants of this state, from held-out images or, without any, from training images."""
    config, settings = experiment.config, experiment.config.eval
    if len(splits.held):
        images, source = splits.held, "held-out"
    else:
        images, source = spread_over(splits.train, settings.calibration_images), "training"
    return calibrate(
        maker,
        state.params,
        state.stats,
        images,
        source,
        CalibrationConfig(
            settings.fusion, settings.image_pool, settings.pixel_fpr, settings.image_fpr
        ),
        config.pseudo_anomaly,
        config.train.seed,
    )


def evaluate_state(
    experiment: Experiment,
    maker: MapMaker,
    state: TrainState,
    splits: Splits,
    calibration: Calibration,
    report: Report | None = None,
) -> dict:
    """The metrics.json object of a state."""
    config, settings = experiment.config, experiment.config.eval
    masks = None
    if "original_size" in settings.compat:
        masks = OriginalMasks(config.data.dataset, config.data.data_dir, "test")
    maps = class_maps(
        maker, state.params, state.stats, splits.test, settings.fusion, calibration, masks
    )
    protocol = Protocol(settings.image_pool, settings.aupro_limit, settings.compat)
    result = evaluate_maps(
        maps,
        protocol,
        calibration.thresholds,
        f"from {calibration.source} images: {settings.image_fpr:g} of the images and "
        f"{settings.pixel_fpr:g} of the pixels may pass",
        report.add if report is not None else None,
    )
    result["protocol"] |= {
        "fusion": settings.fusion,
        "fusion_scale": calibration.fusion_scale,
        "calibration": f"{calibration.source} images",
        "prompt": "none"
        if config.model == "uniad"
        else f"training image {settings.prompt_index} of the class, in file order",
        "step": int(state.step),
    }
    return result


def make_report(
    experiment: Experiment, maker: MapMaker, state: TrainState, directory: Path
) -> Report:
    """An empty report, which will show the diffusion steps of this state where it has any."""
    settings = experiment.config.eval
    return Report(
        directory,
        image_pool=settings.image_pool,
        aupro_limit=settings.aupro_limit,
        steps=step_source(maker, state.params, state.stats, experiment.class_names),
    )
