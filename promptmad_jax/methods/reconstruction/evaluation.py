"""A trained model at work: restored, calibrated, evaluated, reported, ready to predict."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from promptmad_jax.config import Config
from promptmad_jax.evaluation.calibration import CHOICE, Calibration
from promptmad_jax.evaluation.compat.modes import needs_original_masks
from promptmad_jax.evaluation.compat.original_size import OriginalMasks
from promptmad_jax.evaluation.evaluate import class_maps, evaluate_maps
from promptmad_jax.evaluation.inference import MapMaker
from promptmad_jax.evaluation.spread import spread
from promptmad_jax.methods.reconstruction.assembly import (
    Experiment,
    Splits,
    build_experiment,
    class_prompts,
    load_splits,
    refuse_zero_shot,
)
from promptmad_jax.methods.reconstruction.checkpoint_choice import calibrate_state, choose_state
from promptmad_jax.methods.results import write_results
from promptmad_jax.reporting.diffusion_strip import step_source
from promptmad_jax.reporting.report import Report
from promptmad_jax.runs.restore import restore_state
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.processes import ALONE, is_writer, this_run
from promptmad_jax.serving.predictor import Predictor
from promptmad_jax.training.state import TrainState


def run_evaluation(config: Config, files: Workdir, output: Workdir, prompts: int = 1) -> dict:
    """Evaluates a run by its kept checkpoints and writes metrics and report to `output`.

    Args:
        prompts: as for `finish`.
    """
    splits = load_splits(config)
    experiment, maker = restore_experiment(config, files)
    state = restore_state(experiment, files)
    return finish(experiment, maker, state, splits, files, output, prompts)


def load_predictor(workdir: str) -> Predictor:
    """The checkpoint that a run was evaluated at, ready for new images; needs no data set."""
    files = Workdir(workdir)
    config = files.config()
    calibration = files.read_calibration()
    experiment, maker = restore_experiment(config, files)
    state = restore_state(experiment, files, calibration.step)
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
    refuse_zero_shot(config)
    class_names, prompts, text = files.read_bank()
    experiment = build_experiment(config, class_names, text)
    return experiment, experiment.map_maker(prompts)


def finish(
    experiment: Experiment,
    maker: MapMaker,
    state: TrainState,
    splits: Splits,
    files: Workdir,
    output: Workdir,
    prompts: int = 1,
    origin: Mapping[str, str] | None = None,
) -> dict:
    """Evaluates a run with everything: writes metrics.json and the report, prints the table.

    Args:
        state: the newest; `eval.checkpoint` may take an older one of `files` instead.
        prompts: how many training images of each class take their turn as its prompt. The figures
            are of the first; `prompts` in metrics.json has the spread over all.
        origin: entries of the protocol where they are not those of a run.
    """
    others = prompt_makers(experiment, splits, prompts)
    state, calibration = choose_state(experiment, maker, state, splits, files)
    if is_writer():
        output.write_calibration(calibration)
    report = make_report(experiment, maker, state, output.path / "report")
    result = evaluate_state(experiment, maker, state, splits, calibration, report)
    result["protocol"] |= origin or {}
    if others:
        results = (_evaluate_anew(experiment, other, state, splits) for other in others)
        result["prompts"] = spread([result, *results])
    if is_writer():
        write_results(result, report, files, output)
    return result


def prompt_makers(experiment: Experiment, splits: Splits, count: int) -> list[MapMaker]:
    """Inference with the next training images of each class as its prompt, `count` - 1 of them.

    Raises:
        UserError: a class has too few images.
    """
    if count > 1 and experiment.config.model == "uniad":
        raise UserError(f"--prompts={count}: UniAD takes no prompt image; leave it out")
    first = experiment.config.eval.prompt_index
    fewest = int(np.bincount(splits.train.class_ids).min())
    if count > 1 and first + count > fewest:
        raise UserError(
            f"--prompts={count}: the smallest class has {fewest} training images, and "
            f"eval.prompt_index is {first}; give at most {max(1, fewest - first)}"
        )
    indices = range(first + 1, first + count)
    return [experiment.map_maker(class_prompts(splits.train, index)) for index in indices]


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
    if needs_original_masks(settings.compat):
        masks = OriginalMasks(config.data.dataset, config.data.data_dir, "test")
    # A report needs whole classes; without one, each process keeps what it makes.
    shared = this_run() if report is None else ALONE
    maps = class_maps(
        maker, state.params, state.stats, splits.test, settings.fusion, calibration, masks, shared
    )
    result = evaluate_maps(
        maps,
        settings,
        calibration.thresholds,
        f"from {calibration.source} images: {settings.image_fpr:g} of the images and "
        f"{settings.pixel_fpr:g} of the pixels may pass",
        report.add if report is not None else None,
    )
    result["protocol"] |= _choices(config, calibration)
    return result


def _choices(config: Config, calibration: Calibration) -> dict:
    """The entries of the protocol that concern the model."""
    choices = {
        "fusion": config.eval.fusion,
        "fusion_scale": calibration.fusion_scale,
        "calibration": f"{calibration.source} images",
        "prompt": "none"
        if config.model == "uniad"
        else f"training image {config.eval.prompt_index} of the class, in file order",
        "step": calibration.step,
        "checkpoint": "the newest",
    }
    scores = calibration.checkpoint_scores
    if scores:
        choices["checkpoint"] = f"of those kept, that with the highest {CHOICE}"
        choices["checkpoint_scores"] = {str(step): score for step, score in scores.items()}
    return choices


def _evaluate_anew(
    experiment: Experiment, maker: MapMaker, state: TrainState, splits: Splits
) -> dict:
    """The metrics.json object of a state with constants of its own for these prompts."""
    calibration = calibrate_state(experiment, maker, state, splits)
    return evaluate_state(experiment, maker, state, splits, calibration)


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
