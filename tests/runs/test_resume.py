"""Settings that may change on resume, those that may not, and the files after a refusal."""

import json
import pathlib
import types

import pytest

from promptmad_jax.commands.train import run_training
from promptmad_jax.config import Config, parse
from promptmad_jax.runs import manifest
from promptmad_jax.runs.frozen_weights import FrozenWeights
from promptmad_jax.runs.resume import FREE, check_run, check_settings
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.errors import UserError


def changed(**overrides):
    """The default configuration with `group__key=value`."""
    values = to_dict(Config())
    for path, value in overrides.items():
        group, _, key = path.partition("__")
        if key:
            values[group][key] = value
        else:
            values[group] = value
    return parse(values)


@pytest.fixture
def files(tmp_path):
    """A run that was begun with the defaults, on data `abc`, and has a checkpoint."""
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    (tmp_path / "checkpoints" / "config.json").write_text(json.dumps(to_dict(Config())))
    stored = {
        "config": to_dict(Config()),
        "data_fingerprint": "abc",
        "code": manifest.code_versions(),
        "frozen": {"backbone.weights": None},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(stored))
    return Workdir(tmp_path)


def check(config, files, fingerprint="abc", num_images=10):
    """As `train` checks the run that is there."""
    weights = FrozenWeights("backbone.weights", config.backbone.weights, lambda: None)
    training = types.SimpleNamespace(
        fingerprint=fingerprint, num_images=num_images, frozen_weights=weights
    )
    check_settings(config, files)
    check_run(config, files, training)


def snapshot(files):
    paths = pathlib.Path(files.path).rglob("*")
    return {path: path.read_bytes() for path in paths if path.is_file()}


@pytest.mark.parametrize(
    "free",
    [
        {},
        {"name": "other"},
        {"train__log_every": 7, "train__keep": 9, "train__keep_every": 100, "train__steps": 7},
        {"train__eval_at": (3, 4), "train__eval_every": 2, "train__checkpoint_every": 1},
        {"eval__fusion": "standardized", "eval__batch_size": 1, "eval__compat": ()},
        {"mesh__fsdp": 8, "train__resident": "no", "data__data_dir": "/elsewhere"},
        {"pseudo_anomaly__batching": "vmap", "backbone__depthwise": "conv", "dapo__remat": True},
        {"diffusion__unroll": 5},
    ],
)
def test_settings_that_do_not_change_what_is_learned_may_change(files, free):
    check(changed(**free), files)
    assert list(FREE) == sorted(FREE)


def test_every_changed_setting_is_named_before_the_data_are_read(files):
    with pytest.raises(UserError) as caught:
        run_training(changed(train__seed=1, data__image_size=320), str(files.path))
    assert "train.seed was 0 and is 1" in str(caught.value)
    assert "data.image_size was 224 and is 320" in str(caught.value)
    assert "(--config.data.image_size=224 --config.train.seed=0)" in str(caught.value)


def test_a_file_may_move_but_not_change(files, tmp_path):
    old, new = (tmp_path / name / "words.yaml" for name in ("old", "new"))
    for path in (old, new):
        path.parent.mkdir()
        path.write_text("bolt: {}")
    begun, moved = (changed(text__vocabulary=str(path)) for path in (old, new))
    (tmp_path / "checkpoints" / "config.json").write_text(json.dumps(to_dict(begun)))
    digests = {"files": manifest.file_digests(to_dict(begun))}
    (tmp_path / "manifest.json").write_text(json.dumps(files.read_manifest() | digests))
    check(moved, files)
    new.write_text("bolt: {normal: [new]}")
    with pytest.raises(UserError, match=r"text\.vocabulary was .*old.* and is .*new"):
        check(moved, files)


def test_without_a_checkpoint_everything_may_change(files):
    (files.path / "checkpoints" / "5").rename(files.path / "checkpoints" / "5.damaged")
    check(changed(train__seed=1), files, "other")


def test_setting_that_the_older_version_lacked_was_at_its_default(files):
    path = files.path / "checkpoints" / "config.json"
    values = json.loads(path.read_text())
    del values["loss"], values["train"]["seed"]
    path.write_text(json.dumps(values))
    check(Config(), files)
    with pytest.raises(UserError, match=r"train.seed was 0 and is 1"):
        check(changed(train__seed=1), files)


def test_setting_that_this_version_lacks_is_told(files, capsys):
    path = files.path / "checkpoints" / "config.json"
    path.write_text(json.dumps(to_dict(Config()) | {"gone": {"away": 1}}))
    check(Config(), files)
    assert "this version lacks: gone.away" in capsys.readouterr().err


def test_configuration_that_cannot_be_read(files, capsys):
    path = files.path / "checkpoints" / "config.json"
    for text in ("{", "[]"):
        path.write_text(text)
        with pytest.raises(UserError, match="not valid JSON"):
            check(Config(), files)
    path.unlink()
    check(changed(train__seed=1), files)
    assert "cannot be compared" in capsys.readouterr().err


def test_data_may_move_but_not_change(files, capsys):
    check(changed(data__data_dir="/elsewhere"), files)
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match=r"other training images \(fingerprint abc"):
        check(Config(), files, "abd")


def test_other_code_is_told(files, capsys, monkeypatch):
    monkeypatch.setattr(manifest, "__version__", "9.9.9")
    check(Config(), files)
    error = capsys.readouterr().err
    assert "started with promptmad_jax 0." in error and "now 9.9.9+" in error


@pytest.mark.parametrize(("schedule", "told"), [("cosine", True), ("step", False)])
def test_other_length_is_told_where_the_schedule_follows_it(files, capsys, schedule, told):
    path = files.path / "checkpoints" / "config.json"
    path.write_text(json.dumps(to_dict(changed(optimizer__schedule=schedule))))
    longer = changed(optimizer__schedule=schedule, train__steps=5000)
    check(longer, files, num_images=8)
    assert ("had 1000 steps and now has 5000" in capsys.readouterr().err) == told


def test_run_cannot_end_before_where_it_is(files):
    check(changed(train__steps=5), files)
    with pytest.raises(UserError, match="is at step 5, but this configuration ends at 4"):
        check(changed(train__steps=4), files)
