"""Settings that may change on resume, those that may not, and the files after a refusal."""

import json
import pathlib

import pytest

from promptmad_jax.config import Config, parse
from promptmad_jax.runs import manifest
from promptmad_jax.runs.resume import FREE, check_config, check_data, check_length
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
        {"reconstructor__attention_pass": 9, "segmentor__fine_pass": 2, "diffusion__unroll": 5},
    ],
)
def test_settings_that_do_not_change_what_is_learned_may_change(files, free):
    check_config(changed(**free), files)
    assert list(FREE) == sorted(FREE)


@pytest.mark.parametrize(
    ("key", "now", "was", "flag"),
    [
        ("model", "onenip", "'promptmad'", "--config.model=promptmad"),
        ("train__seed", 1, "0", "--config.train.seed=0"),
        ("train__batch_size", 16, "8", "--config.train.batch_size=8"),
        ("train__fine_dtype", "float32", "'bfloat16'", "--config.train.fine_dtype=bfloat16"),
        ("optimizer__learning_rate", 0.5, "0.0001", "--config.optimizer.learning_rate=0.0001"),
        ("loss__focal", 9.0, None, None),
        ("backbone__weights", "/w.npz", "'random'", "--config.backbone.weights=random"),
        ("reconstructor__width", 32, None, None),
        ("segmentor__width", 32, None, None),
        ("data__classes", ("bolt",), "[]", "'--config.data.classes=()'"),
        ("data__holdout", 0.25, "0.0", "--config.data.holdout=0.0"),
        ("diffusion__steps", 7, None, None),
    ],
)
def test_changes_of_what_is_learned_are_refused(files, key, now, was, flag):
    before = snapshot(files)
    with pytest.raises(UserError) as caught:
        check_config(changed(**{key: now}), files)
    message = str(caught.value)
    assert f"{key.replace('__', '.')} was {was or ''}" in message
    assert (flag or "--config.") in message and "another --workdir" in message
    assert snapshot(files) == before


def test_every_changed_setting_is_named(files):
    with pytest.raises(UserError) as caught:
        check_config(changed(train__seed=1, data__image_size=320), files)
    assert "train.seed was 0 and is 1" in str(caught.value)
    assert "data.image_size was 224 and is 320" in str(caught.value)
    assert "(--config.data.image_size=224 --config.train.seed=0)" in str(caught.value)


def test_without_a_checkpoint_everything_may_change(files):
    (files.path / "checkpoints" / "5").rename(files.path / "checkpoints" / "5.damaged")
    check_config(changed(train__seed=1), files)
    check_data(Config(), files, "other", 10)


def test_setting_that_the_older_version_lacked_was_at_its_default(files):
    path = files.path / "checkpoints" / "config.json"
    values = json.loads(path.read_text())
    del values["loss"], values["train"]["seed"]
    path.write_text(json.dumps(values))
    check_config(Config(), files)
    with pytest.raises(UserError, match=r"train.seed was 0 and is 1"):
        check_config(changed(train__seed=1), files)


def test_setting_that_this_version_lacks_is_told(files, capsys):
    path = files.path / "checkpoints" / "config.json"
    path.write_text(json.dumps(to_dict(Config()) | {"gone": {"away": 1}}))
    check_config(Config(), files)
    assert "this version lacks: gone.away" in capsys.readouterr().err


def test_configuration_that_cannot_be_read(files, capsys):
    path = files.path / "checkpoints" / "config.json"
    path.write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        check_config(Config(), files)
    path.unlink()
    check_config(changed(train__seed=1), files)
    assert "cannot be compared" in capsys.readouterr().err


def test_data_may_move_but_not_change(files, capsys):
    check_data(changed(data__data_dir="/elsewhere"), files, "abc", 10)
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match=r"other training images \(fingerprint abc"):
        check_data(Config(), files, "abd", 10)


def test_other_code_is_told(files, capsys, monkeypatch):
    monkeypatch.setattr(manifest, "__version__", "9.9.9")
    check_data(Config(), files, "abc", 10)
    error = capsys.readouterr().err
    assert "started with promptmad_jax 0." in error and "now 9.9.9+" in error


@pytest.mark.parametrize(("schedule", "told"), [("cosine", True), ("step", False)])
def test_other_length_is_told_where_the_schedule_follows_it(files, capsys, schedule, told):
    path = files.path / "checkpoints" / "config.json"
    path.write_text(json.dumps(to_dict(changed(optimizer__schedule=schedule))))
    longer = changed(optimizer__schedule=schedule, train__steps=5000)
    check_config(longer, files)
    check_data(longer, files, "abc", 8)
    assert ("had 1000 steps and now has 5000" in capsys.readouterr().err) == told


def test_run_cannot_end_before_where_it_is(files):
    check_length(5, 5, files)
    with pytest.raises(UserError, match="is at step 6, but this configuration ends at 5"):
        check_length(5, 6, files)
