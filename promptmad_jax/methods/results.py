"""Writes the results of an evaluation: metrics.json, image scores, report."""

import json
from collections.abc import Mapping
from typing import Any

from promptmad_jax.evaluation.image_scores import write_scores
from promptmad_jax.reporting.decisions import class_decisions
from promptmad_jax.reporting.report import Report
from promptmad_jax.reporting.tables import format_table
from promptmad_jax.reporting.warnings import run_warnings
from promptmad_jax.runs.stored import read_manifest
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.files import write_text_atomic
from promptmad_jax.runtime.metrics_log import read_metrics


def write_results(
    result: dict,
    report: Report,
    files: Workdir,
    output: Workdir,
    entries: Mapping[str, Any] | None = None,
) -> None:
    """Writes metrics.json, image_scores.csv and the report to `output`, and prints the table.

    Args:
        entries: of the manifest, where they may not be those of the run: of the data evaluated.
    """
    write_text_atomic(output.path / "metrics.json", json.dumps(result, indent=2) + "\n")
    write_scores(output.path, report.scores)
    manifest = read_manifest(files.path) | (entries or {})
    if output.manifest != files.manifest:
        write_text_atomic(output.manifest, json.dumps(manifest, indent=2) + "\n")
    page = report.write(result, manifest, read_metrics(files.log))
    if result["protocol"]["map_size"]:  # Else nothing was measured.
        print(format_table(result))
        for name, own in class_decisions(result).items():
            print(f"{name}: {own.sentence}")
    for warning in run_warnings(result, manifest):
        warn(warning)
    print(f"metrics: {output.path / 'metrics.json'}")
    print(f"report: {page}")
