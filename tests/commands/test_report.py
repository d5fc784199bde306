"""The report of a finished run, written again: its figures stay, its maps are made anew."""

import json
import types

import pytest

from promptmad_jax.commands import report as rebuild
from promptmad_jax.config import Config
from promptmad_jax.evaluation.image_scores import read_scores
from promptmad_jax.reporting.report import Report
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.errors import UserError
from tests.reporting.report_cases import MANIFEST, evaluate, make_class

CLASSES = make_class("bolt"), make_class("tile")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A run that was evaluated at step 30, and a checkpoint of that step."""
    result = evaluate(*CLASSES)
    result["protocol"]["step"] = 30
    (tmp_path / "metrics.json").write_text(json.dumps(result))
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST))
    plain = [make_class(one.class_name, keys=()) for one in CLASSES]
    steps = []

    def report_maps(files, step):
        steps.append(step)
        return Report(files.path / "report"), iter(plain)

    method = types.SimpleNamespace(report_maps=report_maps)
    monkeypatch.setattr(rebuild, "open_method", lambda config: method)
    files = Workdir(tmp_path)
    files.asked_for = steps
    return files


def test_page_and_scores(files):
    before = (files.path / "metrics.json").read_bytes()
    page = rebuild.rebuild_report(Config(), files)
    assert page == files.path / "report" / "index.html"
    assert "data:image" in page.read_text(encoding="utf-8")
    assert len(read_scores(files.path)) == 22
    assert (files.path / "metrics.json").read_bytes() == before


def test_figures(files, tmp_path):
    rebuild.rebuild_report(Config(), files, tmp_path / "figures")
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"curves.pdf", "histograms.png", "gallery_01_tile.pdf", "classes.tex"} <= names
    assert "training.pdf" not in names


def test_the_checkpoint_that_was_evaluated_is_drawn(files):
    rebuild.rebuild_report(Config(), files)
    assert files.asked_for == [30]


def test_run_that_was_not_evaluated(files):
    (files.path / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"metrics\.json is missing: no evaluation has finished"):
        rebuild.rebuild_report(Config(), files)
