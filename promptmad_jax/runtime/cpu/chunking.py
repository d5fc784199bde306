"""Chunks of a batch that fit a CPU's caches."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from promptmad_jax.runtime.cpu import processor

# Pixels in the backbone and weights of an attention, both per image that `_images_in_cache` counts,
# and pixels on their way to maps. Measured with EfficientNet-B4 (docs/performance.md).
_BACKBONE_PIXELS = 224**2
_ATTENTION_WEIGHTS = 8 * 196**2
_MAPS_PIXELS = 8 * 224**2
_CACHE_PER_IMAGE = 2**24
_FEWEST_IMAGES, _MOST_IMAGES = 2, 8

# Of a memory: their products with those of an image, 1.6 MB at 224 px, stay in a core's cache.
PATCHES = 512


@dataclass(frozen=True)
class Chunking:
    """Upper limits on what is computed at once; 0 sets none.

    Attributes:
        backbone: images in the backbone.
        maps: images on their way from pixels to anomaly maps.
        attention: weights (images x heads x queries x keys) of an attention in training.
        search: patches of a memory that one image is compared with.
    """

    backbone: int = 0
    maps: int = 0
    attention: int = 0
    search: int = 0


WHOLE_BATCH = Chunking()


def chunking_for(mesh: Mesh, image_size: int) -> Chunking:
    """Returns chunks that fit the caches on a single CPU device, the whole batch elsewhere."""
    if mesh.size > 1 or mesh.devices.flat[0].platform != "cpu":
        return WHOLE_BATCH
    images, pixels = _images_in_cache(), image_size**2
    backbone, maps = images * _BACKBONE_PIXELS // pixels, _MAPS_PIXELS // pixels
    return Chunking(max(1, backbone), max(1, maps), images * _ATTENTION_WEIGHTS, PATCHES)


def _images_in_cache() -> int:
    """Images of 224 x 224 that fit the last cache."""
    return min(max(processor.largest_cache() // _CACHE_PER_IMAGE, _FEWEST_IMAGES), _MOST_IMAGES)


def chunk_size(batch: int, limit: int) -> int:
    """Returns the largest divisor of `batch` that is at most `limit`, or 1; 0 sets no limit."""
    return next((n for n in range(min(batch, limit or batch), 1, -1) if batch % n == 0), 1)


def map_chunks(function: Callable[..., Any], limit: int, *arrays: jax.Array) -> Any:
    """Applies `function` to arrays [B, ...] in chunks of at most `limit` rows; 0 sets no limit."""
    batch = len(arrays[0])
    size = chunk_size(batch, limit)
    if size == batch:
        return function(*arrays)
    chunks = [x.reshape(-1, size, *x.shape[1:]) for x in arrays]
    results = jax.lax.map(lambda rows: function(*rows), chunks)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), results)
