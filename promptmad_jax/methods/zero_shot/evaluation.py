"""A zero-shot detector at work: evaluated, reported, ready to predict."""

from collections.abc import Callable, Iterator
from pathlib import Path

from promptmad_jax.config import Config
from promptmad_jax.data.defect_types.images import DefectTypeImages
from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.evaluate import evaluate_maps
from promptmad_jax.evaluation.zero_shot_evaluate import TypeFigures, zero_shot_class_maps
from promptmad_jax.methods.results import write_results
from promptmad_jax.methods.zero_shot.assembly import (
    ZeroShotExperiment,
    build_zero_shot,
    load_target,
    target_facts,
    target_states,
)
from promptmad_jax.reporting.report import Report
from promptmad_jax.reporting.tables import format_types
from promptmad_jax.runs.restore import restore_state
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.processes import is_writer, this_run
from promptmad_jax.serving.zero_shot_predictor import ZeroShotPredictor
from promptmad_jax.training.state import TrainState


def run_zero_shot_evaluation(config: Config, files: Workdir, output: Workdir) -> dict:
    """Evaluates a run at its newest checkpoint and writes metrics and report to `output`."""
    target = load_target(config)
    experiment = build_zero_shot(config)
    state = restore_state(experiment, files)
    return finish_zero_shot(experiment, state, target, files, output)


def finish_zero_shot(
    experiment: ZeroShotExperiment,
    state: TrainState,
    target: DefectTypeImages,
    files: Workdir,
    output: Workdir,
) -> dict:
    """Evaluates a state with everything: writes metrics.json and the report, prints the table."""
    report = make_zero_shot_report(experiment.config, output.path / "report")
    result = evaluate_zero_shot(experiment, state, target, report.add)
    if is_writer():
        entries = {"config": to_dict(experiment.config)} | target_facts(target)
        write_results(result, report, files, output, entries)
        print(format_types(result["multi_type"]))
    return result


def make_zero_shot_report(config: Config, directory: Path) -> Report:
    """An empty report."""
    settings = config.eval
    return Report(directory, image_pool=settings.image_pool, aupro_limit=settings.aupro_limit)


def evaluate_zero_shot(
    experiment: ZeroShotExperiment,
    state: TrainState,
    target: DefectTypeImages,
    also: Callable[[ClassMaps], None] = lambda _: None,
) -> dict:
    """The metrics.json object of a state: that of any detector, and `multi_type`."""
    config = experiment.config
    figures, states = TypeFigures(this_run()), target_states(experiment, state.params, target)
    maps = zero_shot_class_maps(experiment.maker, state.params, states, target, figures)
    result = evaluate_maps(maps, config.eval, {}, "", also)
    result["protocol"] |= _choices(config, int(state.step))
    words = dict(zip(target.taxonomy.names, target.taxonomy.words, strict=True))
    return result | {"multi_type": figures.result(words)}


def _choices(config: Config, step: int) -> dict:
    """The entries of the protocol that concern the model."""
    dapo = config.dapo
    maps = {"states": "the sum of the defect types", "pair": "normal against the mean defect"}
    scores = {
        "pair": "normal against the mean defect, for the class token",
        "map_and_states": "the map's maximum + 1 - normal, for the class token",
    }
    return {
        "map": f"{maps[dapo.map_from]}, among all types of the data set, mean over the taps",
        "image_score": scores[dapo.score_from],
        "taxonomy": config.data.taxonomy or "shipped",
        "trained_on": f"the test split of {config.source.dataset}"
        if config.source.dataset
        else "nothing",
        "step": step,
        "checkpoint": "the newest",
    }


def load_zero_shot_predictor(
    config: Config, files: Workdir | None, words: tuple[str, ...], object_name: str
) -> ZeroShotPredictor:
    """A detector for these defects, in words; needs no data set.

    Args:
        files: the run whose newest checkpoint is taken; None for a configuration without anything
            to train.

    Raises:
        UserError: there is no checkpoint, or the words do not do.
    """
    experiment = build_zero_shot(config)
    params = {}
    if files is not None:
        params = restore_state(experiment, files).params
    elif config.dapo.trains:
        raise UserError("this configuration is trained: give --workdir of its run, not --config")
    cache = None if files is None else files.path / "text_cache"
    tokens = experiment.tokens(words, object_name)
    return ZeroShotPredictor(experiment.maker, params, tokens, words, cache)


def zero_shot_maps_again(config: Config, files: Workdir, step: int) -> Iterator[ClassMaps]:
    """The maps of a finished run once more, for its report."""
    target = load_target(config)
    experiment = build_zero_shot(config)
    params = restore_state(experiment, files, step).params
    states = target_states(experiment, params, target)
    return zero_shot_class_maps(experiment.maker, params, states, target)
