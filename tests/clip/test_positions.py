import numpy as np
import pytest

from promptmad_jax.clip.positions import bicubic_matrix, resize_positions
from tests.clip.narrow import golden, relative


def table(grid, width=8, seed=0):
    shape = (1 + grid * grid, width)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_matches_torch_golden():
    stored = golden("clip_vision")
    ours = resize_positions(
        stored["weights/vision_model.embeddings.position_embedding.weight"], 3, (5, 7)
    )
    assert relative(ours, stored["positions"]) < 1e-6


@pytest.mark.parametrize(
    ("grid", "shape"), [(24, (37, 37)), (7, (14, 9)), (16, (7, 16)), (3, (1, 2)), (5, (6, 6))]
)
def test_matches_torch_live(grid, shape):
    torch = pytest.importorskip("torch")
    positions = table(grid)
    patches = torch.tensor(positions[1:]).reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(
        patches, size=shape, mode="bicubic", align_corners=False
    )
    ours = resize_positions(positions, grid, shape)
    np.testing.assert_array_equal(ours[0], positions[0])
    assert relative(ours[1:], resized[0].permute(1, 2, 0).reshape(-1, 8).numpy()) < 1e-5


def test_the_same_grid_is_left_alone():
    positions = table(4)
    assert resize_positions(positions, 4, (4, 4)) is positions


def test_rows_by_hand():
    # From 2 to 4 the first output reads position -0.25. The taps -2, -1 and 0 are all the border's;
    # the second input is 1.25 away, where the kernel is -0.75 (1.25^3 - 5 1.25^2 + 8 1.25 - 4).
    np.testing.assert_allclose(bicubic_matrix(2, 4)[0], [1.10546875, -0.10546875], rtol=1e-6)
    np.testing.assert_allclose(bicubic_matrix(3, 3), np.eye(3), atol=1e-7)
    np.testing.assert_allclose(bicubic_matrix(24, 37).sum(1), 1, rtol=1e-6)
