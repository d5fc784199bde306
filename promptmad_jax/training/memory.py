"""Makes the memory of normal patches from the cached features of the training images."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from promptmad_jax.models.reconstruction.memory import (
    Memory,
    MemoryConfig,
    distances,
    search,
)
from promptmad_jax.runtime.console import track
from promptmad_jax.runtime.cpu.chunking import PATCHES
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.training.feature_cache import channel_moments

_IMAGES_AT_ONCE = 16
_LEAST_DEVIATION = 1e-6
_GROUP, _CHOICES = 1024, 128  # of `k_centre`: the farthest points, and those taken of them at once


class TrainMemory(NamedTuple):
    """A memory of training images, and how these compare with it.

    Attributes:
        nearest: int32 [N, h, w], places of the nearest patches of other images, see `search`.
    """

    memory: Memory
    nearest: np.ndarray


def make_memory(
    patches: np.ndarray, class_ids: np.ndarray, class_names: tuple[str, ...], config: MemoryConfig
) -> TrainMemory:
    """Chooses the patches of each class and compares all training images with them.

    Args:
        patches: features [N, h, w, C] of the training images, memory-mapped or not.
        class_ids: int [N], into `class_names`.

    Raises:
        UserError: a class has a single image, which cannot be compared with others.
    """
    counts = np.bincount(class_ids, minlength=len(class_names))
    if counts.min() < 2:
        name = class_names[int(counts.argmin())]
        raise UserError(
            f"class {name!r} has {counts.min()} training images; a memory compares each with the "
            "others: give at least two, or set memory.patches=0"
        )
    banks = [
        _class_memory(patches, np.flatnonzero(class_ids == k), k, config)
        for k in track(
            range(len(class_names)), f"making the memory of {len(class_ids)} normal images"
        )
    ]
    stacked = [np.stack(part) for part in zip(*banks, strict=True)]
    unknown = np.tile(np.array([0, 1], np.float32), (len(class_names), 1))
    memory = Memory(*stacked, unknown)
    nearest, distance = _compare(memory, patches, class_ids)
    moments = [_moments_of(distance[class_ids == k]) for k in range(len(banks))]
    return TrainMemory(memory._replace(normal=np.stack(moments)), nearest)


def _class_memory(patches, rows, class_id, config):
    """The arrays of one class: patches, their images, mean and deviation."""
    mean, deviation = channel_moments(patches, rows)
    rng = np.random.default_rng([config.seed, class_id])
    candidates, image = _pool(patches, rows, rng, config.pool)
    return *_chosen((candidates - mean) / deviation, image, rng, config), mean, deviation


def grown_memory(
    memory: Memory, patches: np.ndarray, rows: np.ndarray, config: MemoryConfig
) -> Memory:
    """The memory of one class with patches of further images, as many as before.

    The moments stay, so that distances keep their scale.

    Args:
        memory: K = 1.
        patches: features [n, h, w, C] of the images.
        rows: int [n], by which their patches are known.
    """
    rng = np.random.default_rng([config.seed, 0])
    new, image = _pool(patches, np.arange(len(patches)), rng, config.pool)
    old = np.asarray(memory.patches[0], np.float32)
    candidates = np.concatenate([old, (new - memory.mean[0]) / memory.deviation[0]])
    origin = np.concatenate([memory.images[0], rows[image]])
    stored, images = _chosen(candidates, origin, rng, config)
    return memory._replace(patches=stored[None], images=images[None])


def _pool(patches, rows, rng, limit):
    """At most `limit` patches of these images, float32 [n, C], and the images they are of."""
    cells = patches.shape[1] * patches.shape[2]
    pool = rng.permutation(len(rows) * cells)[:limit]
    pool.sort()  # reads the memory map once, front to back
    image, cell = rows[pool // cells], pool % cells
    flat = patches.reshape(len(patches), cells, -1)
    return np.asarray(flat[image, cell], np.float32), image


def _chosen(candidates, image, rng, config):
    """The patches that a memory keeps of standardised ones, and their images."""
    directions = rng.standard_normal((candidates.shape[1], config.projection), np.float32)
    chosen = np.asarray(k_centre(candidates @ directions, config.patches))
    return candidates[chosen].astype(jnp.dtype(config.dtype)), image[chosen].astype(np.int32)


def _moments_of(distances: np.ndarray) -> np.ndarray:
    """Mean and standard deviation, float32 [2]."""
    deviation = max(float(distances.std()), _LEAST_DEVIATION)
    return np.array([distances.mean(), deviation], np.float32)


@functools.partial(jax.jit, static_argnums=1)
def k_centre(points: jax.Array, count: int) -> jax.Array:
    """Greedy k-centre: places int32 [count] of the first point, then of the farthest, and so on.

    Choices are made within a group of the farthest points. While the farthest of the group is no
    nearer than any point outside was before, it is the farthest of all; then one product brings the
    distances of all points up to date.

    Source: Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set
    Approach" (ICLR 2018). With fewer than `count` distinct points some come several times.

    Args:
        points: float32 [n, d].
    """
    norms = jnp.square(points).sum(-1)

    def choose_some(state):
        distance, chosen, done = state
        bounds, group = jax.lax.top_k(distance, min(_GROUP, len(points)))
        members = points[group]
        between = _squared_distances(members, members, norms[group], norms[group])

        def holds(choice):
            left, _, taken = choice
            # NaN is not below anything, so that points with NaN end too.
            return ~(left.max() < bounds[-1]) & (taken < _CHOICES) & (done + taken < count)

        def take(choice):
            left, places, taken = choice
            farthest = jnp.argmax(left)
            return jnp.minimum(left, between[farthest]), places.at[taken].set(farthest), taken + 1

        none = jnp.zeros(_CHOICES, jnp.int32)
        _, places, taken = jax.lax.while_loop(holds, take, (bounds, none, 0))
        places = group[places]
        new = _squared_distances(points, points[places], norms, norms[places])
        nearest = jnp.where((jnp.arange(_CHOICES) < taken)[None], new, jnp.inf).min(1)
        # What follows the taken ones is overwritten by the next.
        chosen = jax.lax.dynamic_update_slice(chosen, places, (done,))
        return jnp.minimum(distance, nearest), chosen, done + taken

    start = jnp.full(len(points), jnp.inf), jnp.zeros(count + _CHOICES, jnp.int32), 0
    return jax.lax.while_loop(lambda state: state[2] < count, choose_some, start)[1][:count]


def _squared_distances(a, b, norms_a, norms_b):
    """Between [n, d] and [m, d] with these squared norms: [n, m]."""
    products = jnp.dot(a, b.T, precision=jax.lax.Precision.HIGHEST)
    return norms_a[:, None] - 2 * products + norms_b[None]


def _compare(memory: Memory, patches: np.ndarray, class_ids: np.ndarray):
    """Nearest patches int32 [N, h, w] of other images, and their distances."""

    @jax.jit
    def compare(memory, *images):
        nearest = search(memory, *images, limit=PATCHES)
        return nearest, distances(memory, images[0], images[1], nearest)

    on_device, parts = jax.device_put(memory), []
    for start in range(0, len(patches), _IMAGES_AT_ONCE):
        # The last batch is padded, so that nothing compiles twice.
        rows = np.minimum(np.arange(start, start + _IMAGES_AT_ONCE), len(patches) - 1)
        ids = class_ids[rows].astype(np.int32), rows.astype(np.int32)
        parts.append(jax.tree.map(np.asarray, compare(on_device, np.asarray(patches[rows]), *ids)))
    return (np.concatenate(part)[: len(patches)] for part in zip(*parts, strict=True))
