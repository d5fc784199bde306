"""Losses against values computed by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.losses.objective import LossConfig, objective
from promptmad_jax.losses.reconstruction import feature_error
from promptmad_jax.losses.segmentation import dice_loss, focal_loss, per_positive
from promptmad_jax.models.reconstruction.outputs import Outputs

SURE = 40.0


def test_dice_of_the_reference():
    mask = jnp.zeros((1, 50, 50)).at[:, :50, :50].set(1.0)
    np.testing.assert_allclose(dice_loss(SURE * mask, mask), 1 - 2501 / 5001, rtol=1e-6)
    np.testing.assert_allclose(dice_loss(SURE * mask, mask), 0.4999, atol=1e-5)
    empty = jnp.zeros((1, 224, 224))
    np.testing.assert_allclose(dice_loss(empty - SURE, empty), 0, atol=1e-6)
    np.testing.assert_allclose(dice_loss(empty, empty), 0.99992, atol=1e-5)
    np.testing.assert_allclose(dice_loss(SURE * mask, mask, factor=2.0), 0, atol=1e-6)


def test_focal_by_hand():
    logits = jnp.asarray([[[0.0, 2.0]]])
    masks = jnp.asarray([[[1.0, 0.0]]])
    p = 1 / (1 + np.exp(-2.0))
    expected = [0.25 * 0.25 * np.log(2), -0.75 * p**2 * np.log(1 - p)]
    np.testing.assert_allclose(focal_loss(logits, masks, 0.25, 2.0)[0, 0], expected, rtol=1e-5)


def test_focal_is_divided_by_the_anomalous_pixels_of_the_batch():
    losses = jnp.ones((2, 3, 3))
    masks = jnp.zeros((2, 3, 3)).at[0, 0].set(1.0)
    assert per_positive(losses, masks) == 6
    assert per_positive(losses, jnp.zeros_like(masks)) == 18


def test_feature_error_by_hand():
    x = jnp.arange(8.0).reshape(2, 1, 2, 2)
    np.testing.assert_allclose(
        feature_error(x, jnp.zeros_like(x)), [14 / 4, (16 + 25 + 36 + 49) / 4]
    )


@pytest.mark.parametrize("refined", [False, True])
def test_the_objective_is_the_weighted_sum(refined):
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    logit = normal(2, 4, 4)
    outputs = Outputs(normal(2, 2, 2, 3), normal(2, 4, 4), logit if refined else None)
    masks = jnp.asarray(rng.random((2, 8, 8)) < 0.3, jnp.float32)
    config = LossConfig(feature=2.0, dice=3.0, focal=5.0, refined_dice=7.0, refined_focal=11.0)
    total, terms = objective(outputs, normal(1, 2, 2, 3), masks, config)
    weights = {"feature": 2, "dice": 3, "focal": 5, "refined_dice": 7, "refined_focal": 11}
    assert set(terms) == (set(weights) if refined else {"feature", "dice", "focal"})
    np.testing.assert_allclose(total, sum(weights[k] * v for k, v in terms.items()), rtol=1e-5)


def test_a_model_that_segments_nothing_has_the_feature_error_alone():
    clean = jnp.ones((2, 2, 2, 3))
    outputs = Outputs(clean + 3, None, None)
    total, terms = objective(outputs, clean, jnp.ones((4, 8, 8)), LossConfig(feature=2.0))
    assert set(terms) == {"feature"}
    np.testing.assert_allclose([terms["feature"], total], [9.0, 18.0])


def test_both_halves_are_compared_with_the_clean_features():
    clean = jnp.ones((1, 2, 2, 3))
    outputs = Outputs(jnp.stack([clean[0], clean[0] + 2]), jnp.zeros((2, 4, 4)), None)
    _, terms = objective(outputs, clean, jnp.zeros((2, 8, 8)), LossConfig())
    np.testing.assert_allclose(terms["feature"], 2.0)
