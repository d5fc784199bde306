"""A run goes on, and is used, with the frozen weights that it was trained with."""

import hashlib
import json
import shutil
import types

import pytest

from promptmad_jax.config import Config, parse
from promptmad_jax.methods.reconstruction.assembly import backbone_weights
from promptmad_jax.methods.zero_shot.assembly import clip_weights
from promptmad_jax.models.backbone.backbone import _shipped
from promptmad_jax.runs.frozen_weights import check_frozen
from promptmad_jax.runs.restore import restore_weights
from promptmad_jax.runs.resume import check_run, check_settings
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.errors import UserError


def on_backbone(weights):
    values = to_dict(Config())
    values["backbone"] |= {"name": "efficientnetv2_nano", "weights": str(weights)}
    return parse(values)


def on_clip(weights):
    values = to_dict(Config())
    values["clip"] |= {"weights": str(weights)}
    values["data"] |= {"image_size": values["dapo"]["image_size"]}
    values["source"] |= {"dataset": "visa"}
    return parse(values | {"model": "zero_shot"})


def a_backbone(folder):
    path = folder / "nano.npz"
    shutil.copy(_shipped("efficientnetv2_nano"), path)
    return path, on_backbone(path)


def a_clip(folder):
    # Only read byte by byte here.
    for name in ("config.json", "vocab.json", "merges.txt", "model.safetensors"):
        (folder / name).write_text(name)
    return folder / "model.safetensors", on_clip(folder)


def weights_of(config):
    return clip_weights(config) if config.model == "zero_shot" else backbone_weights(config)


def check(config, files):
    """As `train` checks the run that is there."""
    training = types.SimpleNamespace(
        fingerprint="abc", num_images=10, frozen_weights=weights_of(config)
    )
    check_settings(config, files)
    check_run(config, files, training)


def begun(folder, config):
    """A run with a checkpoint."""
    (folder / "run" / "checkpoints" / "5").mkdir(parents=True)
    (folder / "run" / "checkpoints" / "config.json").write_text(json.dumps(to_dict(config)))
    stored = {"config": to_dict(config), "data_fingerprint": "abc"} | weights_of(config).facts()
    (folder / "run" / "manifest.json").write_text(json.dumps(stored))
    return Workdir(folder / "run")


@pytest.mark.parametrize(
    ("make", "named"),
    [(a_backbone, r"backbone\.weights=.*nano\.npz"), (a_clip, r"clip\.weights=")],
)
def test_other_weights_of_the_same_name_are_refused(tmp_path, make, named):
    path, config = make(tmp_path)
    files, before = begun(tmp_path, config), path.read_bytes()
    path.write_bytes(before + b"\0")
    for use in (
        lambda: check(config, files),
        lambda: restore_weights(
            types.SimpleNamespace(config=config, frozen_weights=weights_of(config)), files
        ),
    ):
        with pytest.raises(UserError, match=f"made with other weights.*{named}.*Restore"):
            use()
    path.write_bytes(before)
    check(config, files)


def test_a_weight_file_is_noted_by_its_digest(tmp_path):
    path, config = a_backbone(tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert weights_of(config).facts() == {"frozen": {"backbone.weights": digest}}


def test_weights_may_lie_elsewhere(tmp_path):
    path, config = a_backbone(tmp_path)
    files = begun(tmp_path, config)
    for same in (on_backbone("shipped"), on_backbone(path.rename(tmp_path / "moved.npz"))):
        check(same, files)
    other = on_backbone("random")
    with pytest.raises(UserError, match=r"backbone\.weights=random now names"):
        check(other, files)


def test_random_weights_cannot_become_others(tmp_path):
    files = begun(tmp_path, on_backbone("random"))
    with pytest.raises(UserError, match=r"backbone\.weights was 'random' and is 'shipped'"):
        check(on_backbone("shipped"), files)


@pytest.mark.parametrize("config", [on_backbone("random"), on_clip("random")])
def test_random_weights_are_those_of_their_seed(tmp_path, config):
    (digests,) = weights_of(config).facts().values()
    assert list(digests.values()) == [None]
    check_frozen(weights_of(config), begun(tmp_path, config))


def test_runs_that_noted_nothing_go_on(tmp_path, capsys):
    _, config = a_backbone(tmp_path)
    files = begun(tmp_path, config)
    files.manifest.write_text('{"config": {}, "data_fingerprint": "abc"}')
    check_frozen(weights_of(config), files)
    assert capsys.readouterr().err == ""
    check(config, files)
    assert "did not record its frozen weights" in capsys.readouterr().err
    files.manifest.unlink()
    check_frozen(weights_of(config), files)


@pytest.mark.parametrize("text", ["", '{"data_fing', "[]"])
def test_a_damaged_manifest_is_named(tmp_path, text):
    _, config = a_backbone(tmp_path)
    files = begun(tmp_path, config)
    files.manifest.write_text(text)
    for use in (
        lambda: check(config, files),
        lambda: check_frozen(weights_of(config), files),
    ):
        with pytest.raises(UserError, match=r"manifest\.json is damaged .*bring it back"):
            use()
