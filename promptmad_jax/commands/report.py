"""The report of a finished run once more: its stored figures, its maps computed again."""

from collections.abc import Iterator
from pathlib import Path

from promptmad_jax.config import ZERO_SHOT, Config
from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.evaluate import class_maps
from promptmad_jax.evaluation.image_scores import write_scores
from promptmad_jax.methods.reconstruction.assembly import load_splits
from promptmad_jax.methods.reconstruction.evaluation import make_report, restore_experiment
from promptmad_jax.methods.zero_shot.evaluation import make_zero_shot_report, zero_shot_maps_again
from promptmad_jax.reporting.figures import Figures
from promptmad_jax.reporting.report import Report, image_thresholds, publications
from promptmad_jax.reporting.table_files import write_tables
from promptmad_jax.runs.restore import restore_state
from promptmad_jax.runs.stored import read_manifest, read_result
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.metrics_log import read_metrics


def rebuild_report(config: Config, files: Workdir, figures: Path | None = None) -> Path:
    """Writes `report/index.html` and `image_scores.csv` of a run, metrics.json staying as it is.

    The galleries need the maps, so the checkpoint that was evaluated is run over the test images
    again, with the calibration that the run has stored.

    Args:
        figures: where curves, galleries and tables go as well, if anywhere.

    Returns:
        The path of the page.

    Raises:
        UserError: the run was not evaluated, or the checkpoint is no longer kept.
    """
    result, manifest = read_result(files.path), read_manifest(files.path)
    report, maps = _maps_again(config, files, result["protocol"]["step"])
    settings, history = config.eval, read_metrics(files.log)
    drawings = Figures(figures, settings.image_pool, settings.aupro_limit) if figures else None
    for one in maps:
        report.add(one)
        if drawings is not None:
            drawings.add(one)
    write_scores(files.path, report.scores)
    if drawings is not None:
        drawings.write(result, history, image_thresholds(result))
        write_tables(figures, result, publications(manifest))
    return report.write(result, manifest, history)


def _maps_again(config: Config, files: Workdir, step: int) -> tuple[Report, Iterator[ClassMaps]]:
    """An empty report, and the maps of the evaluated checkpoint."""
    folder = files.path / "report"
    if config.model == ZERO_SHOT:
        return make_zero_shot_report(config, folder), zero_shot_maps_again(config, files, step)
    calibration = files.read_calibration()
    experiment, maker = restore_experiment(config, files)
    state = restore_state(experiment, files, step)
    report = make_report(experiment, maker, state, folder)
    test, fusion = load_splits(config).test, config.eval.fusion
    return report, class_maps(maker, state.params, state.stats, test, fusion, calibration)
