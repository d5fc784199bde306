"""Position tables resized to another grid by torch's bicubic interpolations.

Hugging Face's `interpolate_pos_encoding` is `torch.nn.functional.interpolate(mode="bicubic",
align_corners=False)` without antialiasing, and so is this. `jax.image.resize` has another cubic
kernel (a = -0.5 in place of torch's -0.75) and another border. open_clip's own resizing aligns the
corners in early versions and antialiases in later ones: both differ from this. DINOv2's variants
are `bicubic_matrix`'s arguments.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# Slope of the cubic convolution kernel at 1 (Keys, 1981), as torch has it, and antialiasing.
_A, _ANTIALIASED = -0.75, -0.5


@functools.cache
def bicubic_matrix(
    size_in: int, size_out: int, antialias: bool = False, offset: float = 0.0
) -> np.ndarray:
    """float32 [size_out, size_in]: row o weighs the inputs around (o + 0.5) in / out - 0.5.

    Args:
        antialias: as in torch, with its other kernel and border.
        offset: added to `out` in that ratio alone, as DINOv2's own code does.
    """
    ratio = size_in / (size_out + offset)
    position = (np.arange(size_out) + 0.5) * ratio - 0.5
    if antialias:
        distance = np.abs(position[:, None] - np.arange(size_in)[None]) / max(ratio, 1)
        weights = _cubic(distance, _ANTIALIASED) * (distance < 2)
        return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    first = np.floor(position).astype(np.int64) - 1
    matrix = np.zeros((size_out, size_in))
    for tap in range(4):
        index = first + tap
        weight = _cubic(np.abs(position - index), _A)
        np.add.at(matrix, (np.arange(size_out), np.clip(index, 0, size_in - 1)), weight)
    return matrix.astype(np.float32)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x <= 1, near, far)


def resize_positions(table: jax.Array, grid: int, shape: tuple[int, int]) -> jax.Array:
    """Resizes a position table to a grid of shape (h, w); the class token keeps its position.

    Args:
        table: [1 + grid * grid, D], the class token's position first.

    Returns:
        [1 + h * w, D].
    """
    if shape == (grid, grid):
        return table
    return jnp.concatenate([table[:1], resize_patches(table[1:], grid, shape)])


def resize_patches(
    table: jax.Array,
    grid: int,
    shape: tuple[int, int],
    antialias: bool = False,
    offset: float = 0.0,
) -> jax.Array:
    """As `resize_positions`, of patches [grid * grid, D] alone; other arguments as in
    `bicubic_matrix`."""
    if shape == (grid, grid):
        return table
    matrices = (bicubic_matrix(grid, size, antialias, offset) for size in shape)
    rows, columns = map(jnp.asarray, matrices)
    with jax.default_matmul_precision("highest"):
        resized = jnp.einsum("Hh,hwd,Ww->HWd", rows, table.reshape(grid, grid, -1), columns)
    return resized.reshape(-1, table.shape[1])
