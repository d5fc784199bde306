"""Configurations: shipped files, overrides, errors."""

import os
from dataclasses import dataclass, replace

import pytest
from ml_collections import ConfigDict

from promptmad_jax.config import Config, parse
from promptmad_jax.runtime.config_file import find_config, load_config, load_module
from promptmad_jax.runtime.dataclass_parser import parse_dataclass, to_dict
from promptmad_jax.runtime.errors import UserError

NAMES = ("quickstart", "promptmad_mvtec", "onenip_mvtec", "uniad_mvtec", "promptmad_folder")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arg", ["", ":smoke", ":seed=3,smoke"])
def test_shipped_configurations_parse(name, arg):
    parsed = parse(load_config(f"{name}.py{arg}"))
    assert parsed.train.seed == (3 if "seed" in arg else 0)
    assert (parsed.train.steps == 4) == bool(arg)


ROWS = load_module(find_config("study/parts.py")).ROWS


@pytest.mark.parametrize("base", ["quickstart", "folder"])
@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_study_differs_from_its_base_as_stated(base, row):
    name = base if base == "quickstart" else f"promptmad_{base}"
    config = load_config(f"study/parts.py:row={row},base={base},seed=2")
    expected = load_config(f"{name}.py:seed=2").unlock()
    expected.update_from_flattened_dict(ROWS[row] | {"memory.seed": 2, "name": config.name})
    assert parse(config) == parse(expected) and config.name.endswith(f"_{row}")
    smoke = parse(load_config(f"study/parts.py:row={row},base={base},smoke"))
    assert smoke.train.steps == (0 if row == "memory" else 4)


def test_another_batch_size_by_one_word():
    """Its learning rate grows with its square root and rises over five epochs of 3,629 images."""
    parsed = parse(load_config("promptmad_mvtec.py:batch=256"))
    assert (parsed.train.batch_size, parsed.eval.batch_size) == (256, 256)
    assert parsed.optimizer.learning_rate == pytest.approx(1e-4 * 32**0.5)
    assert parsed.optimizer.warmup_steps == 75
    parsed = parse(load_config("promptmad_mvtec.py:batch=32,memory"))
    assert parsed.optimizer.learning_rate == pytest.approx(2e-3)
    with pytest.raises(UserError, match="argument batch=-1: it must not be negative"):
        load_config("onenip_mvtec.py:batch=-1")


@pytest.mark.parametrize("name", NAMES[1:])
def test_another_backbone_by_one_word(name):
    """The fitting sizes come with it; what its levels do not have is refused."""
    config = load_config(f"{name}.py:backbone=dinov2_vitb14")
    parsed = parse(config)
    assert (parsed.data.image_size, parsed.memory.stride) == (448, 14)
    assert parsed.backbone.weights == "facebook/dinov2-base"
    assert parse(load_config(f"{name}.py:backbone=dinov3_vits16,smoke")).data.image_size == 64
    assert load_config(f"{name}.py:backbone=efficientnetv2_nano").backbone.weights == "shipped"
    config.data.image_size = 449
    with pytest.raises(UserError, match="dinov2_vitb14 takes multiples of 14, at least 28: 448 or"):
        parse(config)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("segmentor.laterals", True, "dinov2_vitb14 has no level at stride 7 or 3.5: set it to"),
        ("memory.levels", (4, 8), "(4, 8); dinov2_vitb14 has levels at stride 14"),
        ("memory.stride", 8, "is 8; with dinov2_vitb14 it must be 14 or 7"),
        ("backbone.groups", ((3, 12),), "groups=((3, 12),): dinov2_vitb14 has blocks 0 to 11"),
    ],
)
def test_settings_that_a_backbone_does_not_have(path, value, message):
    config = load_config("promptmad_mvtec.py:memory,backbone=dinov2_vitb14")
    config.update_from_flattened_dict({path: value})
    with pytest.raises(UserError) as error:
        parse(config)
    assert message in str(error.value)
    with pytest.raises(UserError, match="backbone='resnet': it must be one of efficientnet_b4, "):
        load_config("promptmad_mvtec.py:backbone=resnet")


@pytest.mark.parametrize("model", ["onenip", "uniad"])
def test_the_baselines_on_a_folder(model):
    parsed = parse(load_config(f"promptmad_folder:{model}"))
    assert parsed.model == model and parsed.name == f"{model}_folder"
    assert (parsed.eval.fusion == "reconstruction") == (model == "uniad")


def test_every_setting_survives_the_round_trip():
    default = Config()
    here = replace(default, data=replace(default.data, data_dir=os.path.abspath("data")))
    assert parse(ConfigDict(to_dict(default))) == here == parse(to_dict(here))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train.bach_size", 8, "is unknown; did you mean config.train.batch_size?"),
        ("train.batch_size", "8", "is '8'; it must be int, from 1 to 1,000,000"),
        ("train", 3, "is 3; it is a group"),
        ("model", "unet", "is 'unet'; it must be 'promptmad', 'onenip', 'uniad' or 'zero_shot'"),
        ("eval.fusion", ["calibrated"], "it must be 'calibrated', 'image_local', "),
        ("backbone.depthwise", "fast", "it must be 'auto', 'conv' or 'shifted'"),
        ("data.classes", "screw", "it must be tuple of str"),
        ("dapo.taps", (6, 0), "is (6, 0); it must be tuple of int, from 1 to 256"),
        ("mesh.rules", (("x", "y", "z"),), "it must be tuple of (str, tuple of str)"),
        ("mesh.fsdp", 0, "is 0; it must be int, from 1 to 1,000,000 or -1"),
        ("train.steps", -2, "it must be int, from -1 to 2,000,000,000"),
        ("train.steps", 0, "so nothing would be trained, and memory.patches is 0"),
        ("memory.stride", 0, "is 0; it must be int, from 1 to"),
        ("memory.levels", (8, 4), ": levels=(8, 4) must be strides in rising order"),
        ("eval.fusion", "weighted", "which weighs the memory's map, but memory.patches is 0"),
        ("reconstructor.enabled", False, "so nothing tells normal from defective"),
        ("train.seed", 2**32, "it must be int, from 0 to 4,294,967,295"),
        ("optimizer.learning_rate", float("inf"), "it must be float, from 1e-12 to 1,000,000"),
        (
            "backbone.norm_epsilon",
            float("nan"),
            "is nan; it must be float, from 1e-12 to ",
        ),
        ("data.holdout", 0.6, "it must be float, from 0 to 0.5"),
        ("source.mosaic", 2, "is 2; it must be float, from 0 to 1"),
        ("eval.aupro_limit", 0.0, "it must be float, above 0 and at most 1"),
        ("eval.compat", ("bins",), ": compat mode 'bins' is unknown; known: onenip_fusion"),
        ("pseudo_anomaly.perlin", 0.9, ": perlin, patch and scar are (0.9, 0.25, 0.25)"),
        ("pseudo_anomaly.contrast", (0.9, 0.1), ": contrast is (0.9, 0.1); it must rise within 0 "),
        ("pseudo_anomaly.shrink_radius", (0.1, 2), ": shrink_radius is (0.1, 2.0); it must rise"),
        (
            "pseudo_anomaly.shrink_radius",
            (0.0, 0.1),
            "must be (float, from 1e-12 to ",
        ),
        ("reconstructor.heads", 7, ": heads=7 must divide width=256"),
        ("segmentor.heads", 7, ": heads=7 must divide width=128"),
        ("clip.heads", 7, ": heads=7 must divide width=32"),
        ("text.weights", "", ": source=clip needs weights: a Hugging Face id or a folder"),
        ("text.heads", 7, ": heads=7 must divide width=64"),
        (
            "diffusion.objective",
            "epsilon",
            ": objective 'epsilon' cannot start from a step without signal",
        ),
        ("dapo.taps", (), ": taps are (); they must be layers in rising order"),
        ("dapo.taps", (2, 1), ": taps are (2, 1); they must be layers in rising order"),
        ("dapo.prompt_tokens", 0, ": prompt_tokens is 0; it must be at least 1"),
        ("dapo.prompts", 0, ": text_tokens is 4; it must be 0 where prompts is 0"),
        ("dapo.defect_words", "broken", ": defect_words is 'broken'; it must contain {defect}"),
        ("dapo.normal_words", "{objekt}", ": normal_words is '{objekt}'; it may contain {object}"),
        ("mesh.fsdp", -1, ": data and fsdp are both -1"),
        ("mesh.rules", (("x", ("model",)),), ": rules: 'x' names the axis 'model'; it can be 'da"),
        ("mesh.rules", (("(", ()),), ": rules: '(' is not a regular expression"),
        ("data.image_size", 100, "takes multiples of 16, at least 32: 96 or 112"),
        ("segmentor.norm_group", 3, "is 3, which does not divide train.batch_size, 8: set it to"),
        ("segmentor.denoiser_width", 12, "it must be int, from 8 to 16,384, a multiple of 8"),
        ("eval.image_pool", 225, "is 225, more than data.image_size, 224: the image score would"),
    ],
)
def test_mistakes_end_in_one_clear_sentence(path, value, message):
    group, _, key = path.rpartition(".")
    with pytest.raises(UserError) as error:
        parse({group: {key: value}} if group else {key: value})
    at = group if message.startswith(":") else path
    assert message in str(error.value) and str(error.value).startswith(f"config.{at}")


def test_uniad_has_no_maps_to_fuse():
    with pytest.raises(UserError, match=r"eval\.fusion is 'calibrated'; UniAD segments"):
        parse({"model": "uniad"})


@dataclass
class Unions:
    size: int | None = 1
    names: str | tuple[str, ...] = ""


def test_other_types_that_fit():
    assert parse({"loss": {"focal": 2}}).loss.focal == 2.0
    assert parse_dataclass(Unions, {"size": None, "names": ["a"]}, "x") == Unions(None, ("a",))
    with pytest.raises(UserError, match=r"x\.size is '1'; it must be int or None"):
        parse_dataclass(Unions, {"size": "1"}, "x")


@pytest.mark.parametrize(
    ("argument", "message"),
    [("smok", "unknown"), ("seed=x", "must be int"), ("smoke=maybe", "true or false")],
)
def test_arguments_are_checked(argument, message):
    assert load_config("quickstart.py:onenip=false").model == "promptmad"
    with pytest.raises(UserError, match=message):
        load_config(f"quickstart.py:{argument}")
    with pytest.raises(UserError, match="row='mad' is unknown; known are default, memory, "):
        load_config("study/parts.py:row=mad")
