"""Random backbone weights that carry signal: seeded, and normalised layer by layer.

Without BatchNorm's running statistics the signal vanishes or explodes in a random deep network. So
each convolution outside squeeze-and-excitation is rescaled: its output channels have zero mean and
unit variance over a small procedural batch.

In NumPy, since it runs once and would take far longer to compile.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from promptmad_jax.models.backbone.efficientnet import Architecture, Block
from promptmad_jax.models.layers.convolution import same_padding

IMAGES, SIDE, WAVES = 4, 128, 12

Layer = dict[str, np.ndarray]


def calibrated_params(
    architecture: Architecture, shapes: Mapping[str, tuple[int, ...]], seed: int
) -> dict[str, Any]:
    """Draws He-normal kernels from `seed` and calibrates them.

    Args:
        shapes: kernel shape (HWIO) of every layer by its path, such as `block2a/expand`.

    Returns:
        Nested dicts of float32 arrays.
    """
    rng = np.random.default_rng(seed)
    layers = {path: _draw(rng, shape) for path, shape in shapes.items()}
    x = _swish(_normalized(layers["stem"], procedural_images(seed), stride=2))
    for block in architecture.blocks:
        roles = {
            path.split("/")[1]: layer
            for path, layer in layers.items()
            if path.startswith(f"{block.name}/")
        }
        x = _calibrate_block(block, roles, x)
    return _nested(layers)


def _draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Layer:
    deviation = np.sqrt(2 / np.prod(shape[:3]), dtype=np.float32)
    return {
        "kernel": rng.standard_normal(shape, np.float32) * deviation,
        "bias": np.zeros(shape[-1], np.float32),
    }


def _calibrate_block(block: Block, roles: Mapping[str, Layer], x: np.ndarray) -> np.ndarray:
    """Runs one block, calibrating its layers in place; see `ConvolutionBlock` for the order."""
    y = x
    if "expand" in roles:
        stride = block.stride if block.kind == "fused" else 1
        y = _swish(_normalized(roles["expand"], y, stride))
    if block.kind == "mbconv":
        y = _swish(_normalized(roles["depthwise"], y, block.stride))
        squeezed = _swish(y.mean(axis=(1, 2), keepdims=True) @ roles["squeeze"]["kernel"][0, 0])
        y = y / (1 + np.exp(-(squeezed @ roles["excite"]["kernel"][0, 0])))
    y = _normalized(roles["project"], y, block.stride if block.kind == "plain" else 1)
    if block.kind == "plain":
        y = _swish(y)
    return x + y if block.residual else y


def _normalized(layer: Layer, x: np.ndarray, stride: int) -> np.ndarray:
    """Applies a layer and folds its output's statistics into it."""
    y = _convolve(x, layer["kernel"], stride)
    mean, scale = y.mean(axis=(0, 1, 2)), 1 / (y.std(axis=(0, 1, 2)) + 1e-3)
    layer["kernel"] *= scale
    layer["bias"] -= mean * scale
    return y * scale + layer["bias"]


def _convolve(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    size, _, per_group, _ = kernel.shape
    sides = x.shape[1:3]
    x = np.pad(x, ((0, 0), *(same_padding(n, size, stride) for n in sides), (0, 0)))
    rows, columns = (-(-n // stride) for n in sides)
    y = np.zeros((x.shape[0], rows, columns, kernel.shape[3]), np.float32)
    for i, j in np.ndindex(size, size):
        window = x[:, i : i + rows * stride : stride, j : j + columns * stride : stride]
        y += window * kernel[i, j, 0] if per_group == 1 else window @ kernel[i, j]
    return y


def _swish(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def _nested(layers: Mapping[str, Layer]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, layer in layers.items():
        block, _, role = path.partition("/")
        if role:
            tree.setdefault(block, {})[role] = layer
        else:
            tree[block] = layer
    return tree


def procedural_images(seed: int) -> np.ndarray:
    """Smooth noise cut by curved edges: float32 [IMAGES, SIDE, SIDE, 3], zero mean, unit variance.

    Each channel is a sum of plane waves of up to 16 periods per image; where another such sum is
    positive, a different one shows.
    """
    rng = np.random.default_rng(seed)
    steps = np.arange(SIDE, dtype=np.float32) / SIDE

    def waves(count: int) -> np.ndarray:
        # cos(u + v) = cos u cos v - sin u sin v, so that each wave is a product of two axes.
        frequency = rng.uniform(-16, 16, (2, IMAGES, count, 3, 1)) * rng.uniform(size=(count, 1, 1))
        phase = rng.uniform(0, 2 * np.pi, (IMAGES, count, 3, 1))
        u, v = 2 * np.pi * frequency * steps + np.stack([phase, 0 * phase])
        return np.einsum("bkcy,bkcx->byxc", np.cos(u), np.cos(v)) - np.einsum(
            "bkcy,bkcx->byxc", np.sin(u), np.sin(v)
        )

    image = np.where(waves(2)[..., :1] > 0, waves(WAVES), waves(WAVES))
    image -= image.mean(axis=(1, 2, 3), keepdims=True)
    return (image / image.std(axis=(1, 2, 3), keepdims=True)).astype(np.float32)
