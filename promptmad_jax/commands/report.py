"""Rebuilds the report of a finished run: stored figures, maps computed again."""

import contextlib
from pathlib import Path

from promptmad_jax.config import Config
from promptmad_jax.evaluation.image_scores import write_scores
from promptmad_jax.methods.method import open_method
from promptmad_jax.reporting.figures import Figures
from promptmad_jax.reporting.report import image_thresholds, publications
from promptmad_jax.reporting.table_files import write_tables
from promptmad_jax.runs.stored import read_manifest, read_result
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime import outputs
from promptmad_jax.runtime.interrupts import tidied_up
from promptmad_jax.runtime.lock import locked
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
    with contextlib.ExitStack() as stack:
        stack.enter_context(tidied_up())
        stack.enter_context(locked(files.path))
        if figures:
            claimed = outputs.claim(str(figures), outputs.FIGURES, "--figures", str(files.path))
            stack.enter_context(claimed)
        return _rebuild(config, files, figures, result, manifest)


def _rebuild(
    config: Config, files: Workdir, figures: Path | None, result: dict, manifest: dict
) -> Path:
    report, maps = open_method(config).report_maps(files, result["protocol"]["step"])
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
