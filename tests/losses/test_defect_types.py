"""Losses of zero-shot detectors against values computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from promptmad_jax.losses.defect_types import (
    MULTIADS_LOSS,
    DefectTypeLossConfig,
    defect_type_objective,
    dice_of_map,
    focal_of_types,
    image_cross_entropy,
)
from promptmad_jax.models.zero_shot.detector import TrainOutputs

P = jnp.asarray([[[[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]]]])  # one image of 1 x 2 pixels, three states
SMOOTHING = 1e-5


def test_focal_by_hand():
    losses = focal_of_types(P, jnp.asarray([[[1, 1]]]), 2.0, SMOOTHING)
    p = 0.2 * (1 - SMOOTHING) + (0.7 + 0.1) * SMOOTHING / 2
    np.testing.assert_allclose(losses[0, 0, 0], -((1 - p) ** 2) * np.log(p), rtol=1e-5)
    np.testing.assert_allclose(losses[0, 0, 1], 0, atol=1e-7)
    np.testing.assert_allclose(
        focal_of_types(P, jnp.asarray([[[1, 1]]]), 0.0, SMOOTHING)[0, 0, 0], -np.log(p), rtol=1e-5
    )


def test_focal_is_finite_where_the_true_state_has_no_probability():
    wrong = jnp.asarray([[[2, 2]]])
    np.testing.assert_allclose(
        focal_of_types(P, wrong, 2.0, SMOOTHING)[0, 0, 1], -np.log(SMOOTHING / 2), rtol=1e-4
    )
    slope = jax.grad(lambda p: focal_of_types(p, wrong, 2.0, SMOOTHING).sum())(P)
    assert jnp.isfinite(slope).all()
    assert slope[0, 0, 1, 2] < 0


def test_dice_by_hand():
    p = jnp.asarray([[[0.5, 0.25]], [[1.0, 0.0]], [[0.0, 0.0]]])
    t = jnp.asarray([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 0.0]]])
    expected = [1 - (2 * 0.5 + 1) / (0.75 + 1 + 1), 0, 0]
    np.testing.assert_allclose(dice_of_map(p, t), expected, rtol=1e-6)


def test_image_cross_entropy_by_hand():
    logits = jnp.asarray([[0.0, np.log(3.0)]] * 2)
    losses = image_cross_entropy(logits, jnp.asarray([True, False]))
    np.testing.assert_allclose(losses, [-np.log(0.75), -np.log(0.25)], rtol=1e-6)


OUTPUTS = TrainOutputs(jnp.zeros((1, 2)), (P, P[..., jnp.asarray([1, 0, 2])]))
TYPES = jnp.asarray([[[0, 1]]])


def test_the_objective_of_dapo_by_hand():
    total, terms = defect_type_objective(
        OUTPUTS, TYPES, jnp.asarray([True]), DefectTypeLossConfig(smoothing=0.0)
    )
    focal = lambda p: -((1 - p) ** 2) * np.log(p) / 2  # the mean over two pixels, one of them 0
    np.testing.assert_allclose(terms["image"], np.log(2), rtol=1e-6)
    # The second tap gives its true pixels 0.2 and 0.
    assert terms["focal"] == np.inf
    normal = [1 - (2 * 0.7 + 1) / (0.7 + 1 + 1), 1 - (2 * 0.2 + 1) / (1.2 + 1 + 1)]
    defect = [1 - (2 * 1.0 + 1) / (1.3 + 1 + 1), 1 - (2 * 0.0 + 1) / (0.8 + 1 + 1)]
    np.testing.assert_allclose(terms["normal_dice"], sum(normal), rtol=1e-5)
    np.testing.assert_allclose(terms["defect_dice"], sum(defect), rtol=1e-5)
    total, terms = defect_type_objective(
        TrainOutputs(jnp.zeros((1, 2)), (P, P)), TYPES, jnp.asarray([True]), DefectTypeLossConfig()
    )
    np.testing.assert_allclose(terms["focal"], 2 * focal(0.7), rtol=1e-3)
    expected = np.log(2) + 4 * 2 * (focal(0.7) + normal[0] + defect[0])
    np.testing.assert_allclose(total, expected, rtol=1e-3)


def test_the_objective_of_multiads_has_two_terms():
    total, terms = defect_type_objective(OUTPUTS, TYPES, jnp.asarray([True]), MULTIADS_LOSS)
    assert set(terms) == {"focal", "defect_dice"}
    np.testing.assert_allclose(total, terms["focal"] + terms["defect_dice"], rtol=1e-6)


def test_only_the_label_says_whether_an_image_is_anomalous():
    outputs = TrainOutputs(jnp.asarray([[0.0, 5.0]]), (P,))
    none = jnp.zeros((1, 1, 2), int)
    config = DefectTypeLossConfig()
    _, lost = defect_type_objective(outputs, none, jnp.asarray([True]), config)
    _, good = defect_type_objective(outputs, none, jnp.asarray([False]), config)
    assert lost["image"] < 0.01 < 4 < good["image"]
