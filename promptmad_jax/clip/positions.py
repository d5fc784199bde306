"""Position tables resized to another grid by torch's bicubic interpolation.

Hugging Face's `interpolate_pos_encoding` is `torch.nn.functional.interpolate(mode="bicubic",
align_corners=False)` without antialiasing, and so is this. `jax.image.resize` has another cubic
kernel (a = -0.5 in place of torch's -0.75) and another border. open_clip's own resizing aligns the
corners in early versions and antialiases in later ones: both differ from this.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

_A = -0.75  # slope of the cubic convolution kernel at 1 (Keys, 1981), as torch has it


@functools.cache
def bicubic_matrix(size_in: int, size_out: int) -> np.ndarray:
    """float32 [size_out, size_in]: row o weighs the inputs around (o + 0.5) in / out - 0.5."""
    position = (np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5
    first = np.floor(position).astype(np.int64) - 1
    matrix = np.zeros((size_out, size_in))
    for tap in range(4):
        index = first + tap
        weight = _cubic(np.abs(position - index))
        np.add.at(matrix, (np.arange(size_out), np.clip(index, 0, size_in - 1)), weight)
    return matrix.astype(np.float32)


def _cubic(x: np.ndarray) -> np.ndarray:
    near = ((_A + 2) * x - (_A + 3)) * x**2 + 1
    far = ((x - 5) * x + 8) * x * _A - 4 * _A
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
    first, patches = table[:1], table[1:].reshape(grid, grid, -1)
    rows, columns = (jnp.asarray(bicubic_matrix(grid, size)) for size in shape)
    with jax.default_matmul_precision("highest"):
        resized = jnp.einsum("Hh,hwd,Ww->HWd", rows, patches, columns)
    return jnp.concatenate([first, resized.reshape(-1, table.shape[1])])
