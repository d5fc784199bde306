"""Bilinear resizing with aligned corners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.models.layers.resize import (
    align_corners_matrix,
    area_matrix,
    resize_align_corners,
)


def test_enlarging_three_to_five_by_hand():
    x = jnp.asarray([0.0, 1.0, 4.0])[None, :, None]
    np.testing.assert_allclose(resize_align_corners(x, 5, 1)[0, :, 0], [0, 0.5, 1, 2.5, 4])


def test_shrinking_reads_two_taps_and_does_not_average():
    matrix = align_corners_matrix(112, 14)
    assert (np.count_nonzero(matrix, axis=1) <= 2).all()
    np.testing.assert_allclose(matrix @ np.arange(112), np.arange(14) * 111 / 13, rtol=1e-6)


@pytest.mark.parametrize(("size_in", "size_out"), [(28, 14), (14, 224), (7, 7), (1, 4), (5, 1)])
def test_rows_sum_to_one(size_in, size_out):
    np.testing.assert_allclose(align_corners_matrix(size_in, size_out).sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_accelerators_resize_in_full_float32(platform):
    """Whatever the default precision of products is."""
    with jax.default_matmul_precision("bfloat16"):
        traced = jax.jit(lambda x: resize_align_corners(x, 224, 224)).trace(jnp.ones((1, 28, 28)))
        text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("dot_general") == text.count("precision = [HIGHEST, HIGHEST]") == 2


def test_channels_are_resized_alike():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 3)), jnp.float32)
    resized = resize_align_corners(x, 9, 5)
    assert resized.shape == (2, 9, 5, 3)
    np.testing.assert_allclose(resized[..., 1], resize_align_corners(x[..., 1], 9, 5), rtol=1e-6)


def test_live_against_torch():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(1).normal(size=(2, 28, 28, 5)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(x.transpose(0, 3, 1, 2)), (14, 56), mode="bilinear", align_corners=True
    )
    ours = resize_align_corners(jnp.asarray(x), 14, 56)
    np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-5)


def test_areas_are_averaged_by_hand():
    np.testing.assert_allclose(area_matrix(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]], rtol=1e-6)
    np.testing.assert_allclose(area_matrix(448, 128).sum(1), 1, rtol=1e-6)
