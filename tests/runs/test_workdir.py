"""A working directory in an object store keeps its address, and its files come back."""

import dataclasses
import json
import os
import re

import numpy as np
import pytest

from promptmad_jax.config import Config
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.constants import Calibration
from promptmad_jax.evaluation.image_scores import ImageScore, read_scores, write_scores
from promptmad_jax.prompts.embeddings import TextTokens
from promptmad_jax.reporting.report import Report
from promptmad_jax.runs.stored import read_manifest, read_result
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime import checkpoint
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import write_text_atomic


@pytest.fixture(params=["disk", "bucket"])
def files(request, tmp_path):
    path = tmp_path / "run" if request.param == "disk" else request.getfixturevalue("bucket")
    return Workdir(os.fspath(path))


def test_bank_comes_back(files):
    prompts = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    text = TextTokens(
        np.ones((2, 3, 4), np.float32),
        np.ones((2, 3), bool),
        (("a", "b", "c"), ("d", "e", "f")),
        ("x", "y"),
    )
    files.write_bank(("bolt", "board"), prompts, text, np.ones((2, 3)))
    names, restored, words, moments = files.read_bank()
    assert names == ("bolt", "board") and moments.shape == (2, 3)
    np.testing.assert_array_equal(restored, prompts)
    assert words.names == text.names and words.sources == text.sources
    np.testing.assert_array_equal(words.tokens, text.tokens)


def test_calibration_comes_back(files):
    names = [field.name for field in dataclasses.fields(Calibration)]
    assert "step" in names
    calibration = Calibration("training", 0.5, {}, {"bolt": (0.0, 1.0)}, {}, 7, {3: 0.5})
    files.write_calibration(calibration)
    assert files.read_calibration() == calibration


@pytest.mark.parametrize(("fusion", "refused"), [("standardized", True), ("calibrated", False)])
def test_constants_of_maps_weighed_otherwise_are_refused(tmp_path, fusion, refused):
    files = Workdir(tmp_path)
    config = Config(eval=EvalConfig(fusion=fusion))
    write_text_atomic(
        files.path / "checkpoints" / checkpoint.CONFIG_FILE, json.dumps(to_dict(config))
    )
    calibration = Calibration("training", 0.5, {}, {}, {}, 7)
    files.write_calibration(calibration)
    path = files.path / "calibration.json"
    values = json.loads(path.read_text())
    del values["segmentation_weight"]
    write_text_atomic(path, json.dumps(values))
    if refused:
        with pytest.raises(UserError, match=r"older version; write it with .* --workdir="):
            files.read_calibration()
        files.write_calibration(calibration)
    assert files.read_calibration() == calibration


@pytest.mark.parametrize("damage", [lambda content: content[:-40], lambda content: b"{}"])
@pytest.mark.parametrize("name", ["bank.npz", "calibration.json"])
def test_damaged_files_are_named_with_the_way_out(tmp_path, name, damage):
    files = Workdir(tmp_path)
    files.write_bank(("bolt",), np.zeros((1, 8, 8, 3), np.uint8), None)
    files.write_calibration(Calibration("training", 0.5, {}, {}, {}, 7))
    path = tmp_path / name
    path.write_bytes(damage(path.read_bytes()))
    read = files.read_bank if name == "bank.npz" else files.read_calibration
    with pytest.raises(UserError, match=rf"{re.escape(name)} is .*`promptmad \w+"):
        read()


def test_configuration_results_and_scores_come_back(files):
    path = files.path / "checkpoints" / checkpoint.CONFIG_FILE
    with pytest.raises(UserError, match="holds no trained model"):
        files.config()
    write_text_atomic(path, "[]")
    with pytest.raises(UserError, match=r"is damaged .* restore it"):
        files.config()
    values = to_dict(Config(name="cloud"))
    values["segmentor"]["fine_pass"] = 2  # as an older version wrote
    write_text_atomic(path, json.dumps(values))
    assert files.config().name == "cloud"
    write_text_atomic(files.path / "metrics.json", '{"classes": {}}')
    assert read_result(files.path) == {"classes": {}}
    write_text_atomic(files.manifest, '{"config": {}}')
    assert read_manifest(files.path) == {"config": {}}
    scores = [ImageScore("bolt", "a\nb.png", "good", 0, 0.1)]
    write_scores(files.path, scores)
    assert read_scores(files.path) == scores


@pytest.mark.parametrize("address", ["gs://bucket/run", "gs://bucket/a b/run/"])
def test_no_path_of_a_bucket_loses_its_address(address, bucket, monkeypatch):
    opened = []
    monkeypatch.setattr(checkpoint, "OrbaxStore", lambda directory, *_: opened.append(directory))
    files = Workdir(address)
    files.checkpoints(1)
    root = address.rstrip("/")
    assert os.fspath(opened[0]) == f"{root}/checkpoints"
    assert os.fspath(files.manifest) == f"{root}/manifest.json"
    assert os.fspath(files.log) == f"{root}/metrics.jsonl"
    report = Report(files.path / "report", image_pool=1, aupro_limit=0.3)
    assert os.fspath(report._directory) == f"{root}/report"
