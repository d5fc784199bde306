"""A small network learns a larger one's levels."""

import jax
import jax.numpy as jnp
import numpy as np

from promptmad_jax.models.backbone.efficientnet import Architecture, Stage
from promptmad_jax.models.backbone.efficientnet_backbone import EfficientNetBackbone, layer_shapes
from promptmad_jax.models.backbone.random_weights import calibrated_params
from tools.pretrain_nano import PretrainingConfig, Teacher, pretrain, principal_components


def network(seed, *channels):
    kinds = ("plain", 1, 1), ("fused", 2, 2), ("fused", 2, 2), ("mbconv", 2, 2)
    stages = tuple(
        Stage(kind, 3, stride, expansion, width, 1, tapped=True)
        for (kind, stride, expansion), width in zip(kinds, channels, strict=True)
    )
    architecture = Architecture("tiny", 4, stages)
    params = calibrated_params(architecture, layer_shapes(architecture), seed)
    backbone = EfficientNetBackbone(architecture, "same", "auto", "float32")
    return Teacher(backbone, jax.tree.map(jnp.asarray, params))


def test_every_level_is_learned_better_than_by_a_constant():
    student, teacher = network(0, 4, 6, 8, 10), network(1, 4, 8, 12, 16)
    tiles = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    pictures = tiles.repeat(4, 1).repeat(4, 2)
    config = PretrainingConfig(batch_size=2, clean=1, component_batches=1, steps=200)
    reports = []
    keep = lambda *report: reports.append(report)
    trained = pretrain(student.backbone, student.params, teacher, pictures, config, keep)
    (first, before), (last, after) = reports  # 1 is what a constant would get
    assert (first, last) == (100, 200) and len(after) == 4
    assert np.less(after, before).all() and max(after) < 0.8, (before, after)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), student.params, trained)
    assert all(value > 0 for value in jax.tree.leaves(moved))


def test_components_explain_the_most_variance():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 4)) * [1, 5, 0.1, 3] + 10
    found = principal_components(x.mean(0), x.T @ x / len(x), 2)
    along = x @ found.axes - found.mean.reshape(-1)
    np.testing.assert_allclose(along.mean(0), 0, atol=1e-8)
    np.testing.assert_allclose(along.var(0).sum(), found.variance)
    assert (np.abs(found.axes).argmax(0) == [1, 3]).all()
