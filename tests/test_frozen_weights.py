"""A run goes on, and is evaluated, with the backbone that it was trained on."""

import hashlib
import json
import shutil

import pytest

from promptmad_jax.config import Config, parse, to_dict
from promptmad_jax.evaluation_run import restore_experiment
from promptmad_jax.frozen_weights import check_frozen, frozen_facts
from promptmad_jax.models.backbone import _shipped
from promptmad_jax.resume import check_data
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.workdir import Workdir


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "nano.npz"
    shutil.copy(_shipped("efficientnetv2_nano"), path)
    return path


def with_backbone(**backbone):
    values = to_dict(Config())
    values["backbone"] |= {"name": "efficientnetv2_nano"} | backbone
    return parse(values)


def begun(tmp_path, config):
    """A run with a checkpoint."""
    (tmp_path / "run" / "checkpoints" / "5").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "config.json").write_text(json.dumps(to_dict(config)))
    stored = {"data_fingerprint": "abc"} | frozen_facts(config)
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(stored))
    return Workdir(tmp_path / "run")


def test_facts_are_of_the_file(weights):
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert frozen_facts(with_backbone(weights=str(weights))) == {"backbone_digest": digest}
    assert frozen_facts(with_backbone(weights="shipped")) == {"backbone_digest": digest}
    assert frozen_facts(with_backbone(weights="random")) == {"backbone_digest": None}


def test_another_file_of_the_same_name_is_refused(tmp_path, weights):
    config = with_backbone(weights=str(weights))
    files = begun(tmp_path, config)
    check_data(config, files, "abc", 10)
    weights.write_bytes(weights.read_bytes() + b"\0")
    message = r"another backbone.*nano\.npz have SHA-256 .*Bring back"
    for check in (
        lambda: check_frozen(config, files),
        lambda: check_data(config, files, "abc", 10),
        lambda: restore_experiment(config, files),
    ):
        with pytest.raises(UserError, match=message):
            check()


def test_runs_that_noted_none_go_on(tmp_path, weights):
    random = with_backbone(weights="random")
    check_frozen(random, begun(tmp_path, random))
    older = Workdir(tmp_path / "run")
    older.manifest.write_text("{}")
    check_frozen(with_backbone(weights=str(weights)), older)
    older.manifest.unlink()
    check_frozen(with_backbone(weights=str(weights)), older)
