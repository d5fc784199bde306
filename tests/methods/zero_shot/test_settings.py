"""The settings of zero-shot runs: shipped files, and what is refused."""

from dataclasses import asdict, replace

import pytest

from promptmad_jax.config import parse
from promptmad_jax.losses.defect_types import MULTIADS_LOSS
from promptmad_jax.methods.zero_shot.images import on_other_data
from promptmad_jax.models.zero_shot.config import CLIP_ZERO_SHOT, DAPO, MULTIADS
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.errors import UserError

TRAINED = (
    "dapo_mvtec_to_visa",
    "dapo_visa_to_mvtec",
    "multiads_mvtec_to_visa",
    "multiads_visa_to_mvtec",
)


def get(name, arg="seed=0"):
    return load_config(f"{name}.py:{arg}")


@pytest.mark.parametrize("name", TRAINED)
def test_shipped_configurations_are_the_published_ones(name):
    config = parse(get(name, "seed=3"))
    assert config.name == name and config.model == "zero_shot" and config.train.seed == 3
    assert config.dapo == (DAPO if name.startswith("dapo") else MULTIADS)
    assert config.source.single_defect == (config.source.dataset == "visa")
    adam = config.optimizer
    assert (adam.learning_rate, adam.beta1, adam.beta2) == (1e-3, 0.5, 0.999)
    assert (adam.weight_decay, adam.clip_norm, adam.schedule) == (0, 0, "constant")
    assert (config.train.batch_size, config.train.epochs, config.source.mosaic) == (8, 5, 0)
    assert config.train.eval_every == 0 and config.eval.checkpoint == "last"
    if name.startswith("multiads"):
        assert config.type_loss == MULTIADS_LOSS


def test_the_floor_and_the_cached_form():
    floor = parse(get("clip_zero_shot"))
    assert floor.dapo == CLIP_ZERO_SHOT and not floor.source.dataset
    cached = parse(get("dapo_visa_to_mvtec", "cached"))
    assert cached.dapo == replace(DAPO, image_tokens=0)


@pytest.mark.parametrize("name", [*TRAINED, "clip_zero_shot"])
def test_smoke(name):
    config = parse(get(name, "smoke"))
    assert config.clip.weights == "random" and config.dapo.image_size == 64
    assert config.train.steps == (-1 if name == "clip_zero_shot" else 4)


def test_one_size_whichever_is_set():
    config = get("dapo_visa_to_mvtec")
    config.data.image_size = 336
    assert parse(config).dapo.image_size == 336


def changed(**groups):
    values = asdict(parse(get("dapo_visa_to_mvtec", "smoke")))
    for name, settings in groups.items():
        values[name] |= settings
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dapo": {"image_size": 32}}, "they are one size: set both"),
        ({"source": {"dataset": ""}}, "there is nothing to train on"),
        ({"source": {"classes": ("wood_board",)}}, "wood_board would be trained on and tested"),
        ({"source": {"classes": ()}}, "all its classes would be trained on and tested"),
        ({"data": {"holdout": 0.1}}, "none to hold out"),
        ({"source": {"mosaic": 0.5}, "train": {"batch_size": 3}}, "batch_size .now 3. to 4 or mo"),
        (
            {"source": {"mosaic": 0.5}, "data": {"image_size": 63}, "dapo": {"image_size": 63}},
            "now 63. to an even number",
        ),
        ({"eval": {"checkpoint": "held_out"}}, "no image of its target"),
        ({"dapo": {"image_tokens": 0}, "source": {"mosaic": 0.5}}, "train.cache_images=False"),
        ({"dapo": {"prompts": 0, "text_tokens": 0, "adapters": False, "image_tokens": 0}}, "leave"),
    ],
)
def test_mistakes_end_in_one_clear_sentence(change, message):
    with pytest.raises(UserError, match=message):
        parse(changed(**change))


def test_another_target_has_classes_and_types_of_its_own():
    config = parse(get("dapo_visa_to_mvtec", "smoke"))
    other = on_other_data(config, "mpdd", taxonomy="/own.yaml").data
    assert (other.dataset, other.classes, other.taxonomy) == ("mpdd", (), "/own.yaml")
    moved = on_other_data(config, data_dir="/elsewhere").data
    assert moved == replace(config.data, data_dir="/elsewhere")
    with pytest.raises(UserError, match="all its classes would be trained on and tested"):
        on_other_data(config, "synthetic_mvtec")
