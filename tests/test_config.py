"""Configurations: shipped files, overrides, errors."""

import pytest
from ml_collections import ConfigDict

from promptmad_jax.config import Config, parse
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.errors import UserError

NAMES = ("quickstart", "promptmad_mvtec", "onenip_mvtec", "uniad_mvtec", "promptmad_folder")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arg", ["", ":smoke", ":seed=3,smoke"])
def test_shipped_configurations_parse(name, arg):
    parsed = parse(load_config(f"{name}.py{arg}"))
    assert parsed.train.seed == (3 if "seed" in arg else 0)
    assert (parsed.train.steps == 4) == bool(arg)


@pytest.mark.parametrize("model", ["onenip", "uniad"])
def test_the_baselines_on_a_folder(model):
    parsed = parse(load_config(f"promptmad_folder:{model}"))
    assert parsed.model == model and parsed.name == f"{model}_folder"
    assert (parsed.eval.fusion == "reconstruction") == (model == "uniad")


def test_every_setting_survives_the_round_trip():
    assert parse(ConfigDict(to_dict(Config()))) == Config()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train": {"bach_size": 8}},
            r"config.train.bach_size is unknown; did you mean config.train.batch_size\?",
        ),
        (
            {"train": {"batch_size": "8"}},
            "config.train.batch_size is '8', of type str; it must be int",
        ),
        ({"train": 3}, "config.train is 3; it is a group"),
        ({"model": "unet"}, "config.model is 'unet'; it can be 'promptmad', 'onenip'"),
        ({"model": "uniad"}, "config.eval.fusion is 'calibrated'; UniAD segments nothing"),
        ({"diffusion": {"objective": "v"}}, "config.diffusion.objective"),
        ({"diffusion": {"noise_scale": 0.0}}, "noise_scale"),
        ({"data": {"image_size": 100}}, "multiple of 16"),
        ({"data": {"classes": "screw"}}, "must be a tuple"),
    ],
)
def test_mistakes_end_in_one_clear_sentence(change, message):
    with pytest.raises(UserError, match=message):
        parse(change)


def test_an_integer_is_a_float_where_a_float_is_wanted():
    assert parse({"loss": {"focal": 2}}).loss.focal == 2.0


@pytest.mark.parametrize(
    ("argument", "message"),
    [("smok", "unknown"), ("seed=x", "must be int"), ("smoke=maybe", "true or false")],
)
def test_arguments_are_checked(argument, message):
    assert load_config("quickstart.py:onenip=false").model == "promptmad"
    with pytest.raises(UserError, match=message):
        load_config(f"quickstart.py:{argument}")
