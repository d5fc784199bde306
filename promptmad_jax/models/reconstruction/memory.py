"""A memory of normal patches per class, and an image's distance from it.

Each class keeps a coreset of patch features of its normal images (PatchCore, Roth et al., CVPR
2022). An image is compared with the nearest patches of its class; nothing is learned.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from promptmad_jax.models.backbone.protocol import Backbone, level_channels
from promptmad_jax.runtime.cpu.chunking import map_chunks
from promptmad_jax.runtime.field_types import PositiveInt, Range, Seed, Width

# Standard deviations up to which a distance counts as it is; beyond, its logarithm does, so that a
# glaring defect does not outweigh all others in a loss.
_KNEE = 4.0

# Patches whose distances from a batch TPU's compiler does not keep: with 8,192 at once it does,
# which takes 7 GB for 256 images.
_BLOCK = 4096


@dataclass(frozen=True)
class MemoryConfig:
    """The memory of normal patches.

    Attributes:
        patches: patches M per class; 0 leaves the memory out, as the publication does.
        levels: strides of the backbone's levels that describe a patch, in rising order.
        stride: of the grid of patches: that of the backbone's last level, a half or a quarter.
        projection: numbers that a patch is projected to at random, to choose patches.
        pool: patches of a class that the M are chosen from.
        dtype: of the stored patches.
        seed: of the pool and the projection.

    Raises:
        ValueError: levels are empty, repeated or not in order; or the pool is smaller than the
            memory.
    """

    patches: Annotated[int, Range(0, 1_000_000)] = 0
    levels: tuple[PositiveInt, ...] = (4, 8, 16)
    stride: PositiveInt = 8
    projection: Width = 64
    pool: Annotated[int, Range(1, 100_000_000)] = 100_000
    dtype: Literal["float16", "float32"] = "float16"
    seed: Seed = 0

    def __post_init__(self):
        if not self.levels or sorted(set(self.levels)) != list(self.levels):
            raise ValueError(f"levels={self.levels} must be strides in rising order")
        if self.pool < self.patches:
            raise ValueError(f"pool={self.pool} must be at least patches={self.patches}")

    def channels(self, by_stride: Mapping[int, int]) -> int:
        """Channels C of a patch, of those of the backbone's levels; see `level_channels`."""
        return sum(by_stride[stride] for stride in self.levels)


class Memory(NamedTuple):
    """Memories of K classes.

    Attributes:
        patches: [K, M, C], standardised by channel.
        images: int32 [K, M], the row of the training set that each patch comes from.
        mean, deviation: float32 [K, C], moments of the class's normal patches.
        normal: float32 [K, 2], mean and standard deviation of the distances of its training images
            from the patches of its other images.
    """

    patches: jax.Array
    images: jax.Array
    mean: jax.Array
    deviation: jax.Array
    normal: jax.Array


def memory_shapes(config: MemoryConfig, classes: int, backbone: Backbone) -> Memory:
    """`jax.ShapeDtypeStruct`s of K = `classes` memories."""
    shape, width = jax.ShapeDtypeStruct, config.channels(level_channels(backbone))
    moments = shape((classes, width), jnp.float32)
    return Memory(
        shape((classes, config.patches, width), jnp.dtype(config.dtype)),
        shape((classes, config.patches), jnp.int32),
        moments,
        moments,
        shape((classes, 2), jnp.float32),
    )


class Match(NamedTuple):
    """Patches of B images beside the nearest ones of their classes' memories.

    Attributes:
        residual: [B, h, w, C], absolute difference by channel, in standard deviations.
        distance: [B, h, w], Euclidean distance less the mean of normal images, in their standard
            deviations s, compressed: 4 asinh(s / 4).
    """

    residual: jax.Array
    distance: jax.Array


def patch_features(
    levels: tuple[jax.Array, ...], strides: tuple[int, ...], config: MemoryConfig
) -> jax.Array:
    """Backbone levels at these strides to patch features [B, h, w, C].

    Each level is averaged over 3x3 with zeros outside, so that the border stays recognisable, and
    resized to one grid.
    """
    side = levels[-1].shape[1] * strides[-1] // config.stride
    used = [x for stride, x in zip(strides, levels, strict=True) if stride in config.levels]
    return jnp.concatenate([_resize(_average(x), side) for x in used], axis=-1)


def _average(x: jax.Array) -> jax.Array:
    window, ones = (1, 3, 3, 1), (1, 1, 1, 1)
    total = jax.lax.reduce_window(x.astype(jnp.float32), 0.0, jax.lax.add, window, ones, "SAME")
    return total / 9


def _resize(x: jax.Array, side: int) -> jax.Array:
    shape = (len(x), side, side, x.shape[-1])
    return jax.image.resize(x, shape, "bilinear", antialias=False)


def match(memory: Memory, patches: jax.Array, class_ids: jax.Array, nearest: jax.Array) -> Match:
    """Compares patches [B, h, w, C] with those at places `nearest` int [B, h, w]."""
    difference = _difference(memory, patches, class_ids, nearest)
    mean, deviation = jnp.moveaxis(memory.normal[class_ids], 1, 0)[..., None, None]
    distance = (_norm(difference) - mean) / deviation
    return Match(jnp.abs(difference), _KNEE * jnp.arcsinh(distance / _KNEE))


def distances(
    memory: Memory, patches: jax.Array, class_ids: jax.Array, nearest: jax.Array
) -> jax.Array:
    """Distances of patches [B, h, w, C] from those at places `nearest`, [B, h, w]."""
    return _norm(_difference(memory, patches, class_ids, nearest))


def _difference(memory, patches, class_ids, nearest) -> jax.Array:
    rows = nearest.reshape(len(nearest), -1)
    found = memory.patches[class_ids[:, None], rows].reshape(patches.shape)
    return standardize(memory, patches, class_ids) - found.astype(jnp.float32)


def _norm(difference: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.square(difference).sum(-1))


def standardize(memory: Memory, patches: jax.Array, class_ids: jax.Array) -> jax.Array:
    """Patches [B, h, w, C] by the moments of their classes, float32."""
    mean, deviation = (x[class_ids][:, None, None] for x in (memory.mean, memory.deviation))
    return (patches.astype(jnp.float32) - mean) / deviation


def search(
    memory: Memory,
    patches: jax.Array,
    class_ids: jax.Array,
    image_ids: jax.Array,
    limit: int = 0,
) -> jax.Array:
    """Places int32 [B, h, w] of the nearest patches of the images' classes.

    Args:
        image_ids: int32 [B], rows of the training set whose own patches do not count; -1 for
            images that are not of it.
        limit: patches of a memory that one image at a time is compared with; 0 for the whole batch
            and blocks that suit an accelerator.
    """
    queries = standardize(memory, patches, class_ids)

    def of_chunk(*arrays):
        return jax.vmap(lambda *image: _nearest(memory, *image, limit))(*arrays)

    return map_chunks(of_chunk, min(limit, 1), queries, class_ids, image_ids)


def _nearest(memory: Memory, query: jax.Array, class_id: jax.Array, image_id: jax.Array, limit):
    query, shape = query.reshape(-1, query.shape[-1]), query.shape[:2]
    stored, images = memory.patches[class_id], memory.images[class_id]
    size = min(limit or _BLOCK, len(stored))
    if fill := -len(stored) % size:
        # Copies of the last patch fill the last block: of equals the first is taken.
        stored = jnp.pad(stored, ((0, fill), (0, 0)), "edge")
        images = jnp.pad(images, (0, fill), "edge")
    stored, images = stored.reshape(-1, size, stored.shape[-1]), images.reshape(-1, size)
    places = jnp.arange(size, dtype=jnp.int32)[:, None]

    def compare(nearest, block):
        (lowest, place), (first, patches, images) = nearest, block
        patches = patches.astype(jnp.float32)
        # Of |q - m|^2 the part that depends on m, with the memory along the first axis: reducing
        # over the last one is several times slower on a CPU, and so is XLA's argmin.
        products = jnp.einsum("mc,nc->mn", patches, query, precision=jax.lax.Precision.HIGHEST)
        cost = jnp.square(patches).sum(-1)[:, None] - 2 * products
        cost = jnp.where((images == image_id)[:, None], jnp.inf, cost)
        here = cost.min(0)
        found = first + jnp.where(cost == here[None], places, size - 1).min(0)
        return jnp.minimum(lowest, here), jnp.where(here < lowest, found, place)

    blocks = size * jnp.arange(len(images), dtype=jnp.int32), stored, images
    nearest = jnp.full(len(query), jnp.inf), jnp.zeros(len(query), jnp.int32)
    if limit:
        nearest, _ = jax.lax.scan(lambda *state: (compare(*state), None), nearest, blocks)
    else:
        for block in zip(*blocks, strict=True):
            nearest = compare(nearest, block)
    return nearest[1].reshape(shape)
