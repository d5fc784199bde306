"""Levels of one scale, and a network that otherwise computes what it did."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.data.preprocess import normalize
from promptmad_jax.models.backbone.backbone import (
    BackboneConfig,
    build_backbone,
    load_backbone,
)
from promptmad_jax.models.backbone.efficientnet import Architecture, Stage
from promptmad_jax.models.backbone.efficientnet_backbone import EfficientNetBackbone, layer_shapes
from promptmad_jax.models.backbone.random_weights import calibrated_params
from tools.pretrain_nano import PretrainingConfig, balance_levels, pretrain

STEPS = 3

TINY = Architecture(
    "tiny",
    4,
    (
        Stage("plain", 3, 1, 1, 4, 1, tapped=True),
        Stage("fused", 3, 2, 2, 6, 1, tapped=True),
        Stage("fused", 3, 2, 2, 8, 2, tapped=True),
        Stage("mbconv", 3, 2, 2, 10, 1, tapped=True),
    ),
)


def tiny_backbone():
    params = calibrated_params(TINY, layer_shapes(TINY), 0)
    return EfficientNetBackbone(TINY, "same", "auto", "float32"), jax.tree.map(jnp.asarray, params)


def test_channels_are_divided_and_nothing_else_changes():
    backbone, params = load_backbone(BackboneConfig("efficientnetv2_nano", "random"))
    rng = np.random.default_rng(0)
    divisors = [rng.uniform(0.2, 5, channels).astype(np.float32) for channels in backbone.channels]
    images = rng.normal(size=(2, 64, 64, 3)).astype(np.float32)
    run = jax.jit(backbone)
    before, after = (
        run(params, images),
        run(balance_levels(backbone.architecture, params, divisors), images),
    )
    divisors[0] = np.ones_like(divisors[0])  # that stage ends in an activation
    for level, balanced, divisor in zip(before, after, divisors, strict=True):
        wanted = np.asarray(level) / divisor
        np.testing.assert_allclose(balanced, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_a_network_whose_blocks_do_not_expand_is_refused():
    backbone = build_backbone(BackboneConfig("efficientnet_b4"))
    with pytest.raises(ValueError, match="efficientnet_b4: block1a does not expand"):
        balance_levels(backbone.architecture, {}, [])


def test_pretraining_ends_with_levels_of_unit_deviation():
    config = PretrainingConfig(image_size=64, batch_size=2, clean=1, steps=STEPS, width=8)
    backbone, params = tiny_backbone()
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (6, 64, 64, 3), np.uint8)
    class_ids = np.arange(6, dtype=np.int32)
    reports = []
    show = lambda *report: reports.append(report)
    trained = pretrain(backbone, params, pictures, class_ids, config, show)
    [(step, terms)] = reports
    assert step == STEPS and set(terms) == {"focal", "dice", "class"}
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), params, trained)
    assert all(value > 0 for value in jax.tree.leaves(moved))
    for level in jax.jit(backbone)(trained, normalize(pictures))[1:]:
        np.testing.assert_allclose(level.std((0, 1, 2)), 1, rtol=1e-3)
