"""The report of a finished run once more: its stored figures, its maps computed again."""

from pathlib import Path

from promptmad_jax.config import Config
from promptmad_jax.evaluation.run import class_maps
from promptmad_jax.evaluation.scores import write_scores
from promptmad_jax.evaluation_run import make_report, restore_experiment
from promptmad_jax.experiment import load_splits
from promptmad_jax.reporting.figures import Figures
from promptmad_jax.reporting.report import image_thresholds, publications
from promptmad_jax.reporting.stored import read_manifest, read_result
from promptmad_jax.reporting.table_files import write_tables
from promptmad_jax.runtime.logging import read_metrics
from promptmad_jax.state_choice import restore_state
from promptmad_jax.workdir import Workdir


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
    calibration = files.read_calibration()
    experiment, maker = restore_experiment(config, files)
    state = restore_state(experiment, files, result["protocol"]["step"])
    report = make_report(experiment, maker, state, files.path / "report")
    settings, history = config.eval, read_metrics(files.log)
    drawings = Figures(figures, settings.image_pool, settings.aupro_limit) if figures else None
    test = load_splits(config).test
    for one in class_maps(maker, state.params, state.stats, test, settings.fusion, calibration):
        report.add(one)
        if drawings is not None:
            drawings.add(one)
    write_scores(files.path, report.scores)
    if drawings is not None:
        drawings.write(result, history, image_thresholds(result))
        write_tables(figures, result, publications(manifest))
    return report.write(result, manifest, history)
