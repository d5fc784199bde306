"""Training batches: their order as a function of (seed, step), and how arrays are cut into them."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from promptmad_jax.runtime.console import say
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.mesh import batch_sharding, process_rows, replicate
from promptmad_jax.runtime.processes import gather_objects, this_run


class BatchIndices(NamedTuple):
    """Rows of one global batch, int32 [B] each: images, their prompt images, and textures."""

    image: np.ndarray
    prompt: np.ndarray
    texture: np.ndarray


class BatchOrder:
    """The images of the global batch of a step, the same on every process.

    Epochs are permutations drawn from (seed, epoch), one after another. A sample's prompt is drawn
    from its own class, its texture from all textures, both by (seed, step), so that a checkpoint
    needs no iterator state.
    """

    def __init__(self, seed: int, class_ids: np.ndarray, batch_size: int, num_textures: int):
        self.seed, self.class_ids = seed, np.asarray(class_ids)
        self.batch_size, self.num_textures = batch_size, num_textures
        self._members = {c: np.flatnonzero(self.class_ids == c) for c in np.unique(self.class_ids)}
        self._permutation = functools.lru_cache(maxsize=4)(self._draw_permutation)

    def __call__(self, step: int) -> BatchIndices:
        """The batch of step `step`, counted from 0."""
        positions = step * self.batch_size + np.arange(self.batch_size)
        epochs, offsets = np.divmod(positions, len(self.class_ids))
        image = np.array(
            [self._permutation(int(e))[o] for e, o in zip(epochs, offsets, strict=True)], np.int32
        )
        rng = np.random.default_rng([self.seed, 1, step])
        prompt = np.array([rng.choice(self._members[c]) for c in self.class_ids[image]], np.int32)
        texture = rng.integers(self.num_textures, size=self.batch_size, dtype=np.int32)
        return BatchIndices(image, prompt, texture)

    def _draw_permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.class_ids))


class TrainArrays(NamedTuple):
    """The arrays that training reads.

    Attributes:
        images: uint8 [N, S, S, 3].
        textures: uint8 [M, S, S, 3].
        class_ids: int32 [N].
        features: tree of arrays [N, ...] of the clean images; its first leaf is what represents an
            image as a prompt.
    """

    images: Any
    textures: Any
    class_ids: Any
    features: Any


class TrainBatch(NamedTuple):
    """One global batch: `image_ids` int32 [B] are rows of the data set, `prompt` is the features'
    first leaf of the prompt images."""

    image_ids: Any
    images: Any
    textures: Any
    class_ids: Any
    features: Any
    prompt: Any


# Cuts batches, sharded over the mesh, from its arrays.
Source = Callable[[BatchIndices], Any]
# Gathers a batch from arrays.
Take = Callable[[Any, BatchIndices], Any]


def take(arrays: TrainArrays, indices: BatchIndices) -> TrainBatch:
    """Gathers a batch from numpy or jax arrays."""
    features = jax.tree.map(lambda x: x[indices.image], arrays.features)
    prompt = jax.tree.leaves(arrays.features)[0][indices.prompt]
    return TrainBatch(
        indices.image,
        arrays.images[indices.image],
        arrays.textures[indices.texture],
        arrays.class_ids[indices.image],
        features,
        prompt,
    )


def resident_source(arrays: Any, mesh: Mesh, take: Take = take) -> Source:
    """Keeps arrays on every device, so that a global permutation needs no communication."""
    cut = jax.jit(take, out_shardings=batch_sharding(mesh))
    return functools.partial(cut, replicate(arrays, mesh))


def host_source(arrays: Any, mesh: Mesh, take: Take = take) -> Source:
    """Keeps arrays in host memory, usually memory-mapped; each process moves only its own rows."""
    sharding = batch_sharding(mesh)
    put = functools.partial(jax.make_array_from_process_local_data, sharding)

    def cut(indices: BatchIndices) -> Any:
        count = len(indices.image)
        own = process_rows(sharding, count)
        local = take(arrays, BatchIndices(*(x[own] for x in indices)))
        return jax.tree.map(lambda x: put(np.ascontiguousarray(x), (count, *x.shape[1:])), local)

    return cut


def make_source(arrays: Any, mesh: Mesh, resident: str, take: Take = take) -> Source:
    """Builds the source for `train.resident`.

    "auto" keeps the arrays on accelerators that have room for them, but not on a CPU, where host
    memory is the device's.

    Raises:
        UserError: "yes", and a device has no room.
    """
    on_devices = {"yes": True, "no": False, "auto": jax.default_backend() != "cpu"}[resident]
    if on_devices:
        size, free = sum(x.nbytes for x in jax.tree.leaves(arrays)), _free_bytes(mesh)
        if any(gather_objects(this_run(), size > free)):
            fact = f"images and features take {size / 1e9:.1f} GB, more than a device has free"
            if resident == "yes":
                raise UserError(f"train.resident is 'yes', but {fact}: set it to 'no'")
            say(f"{fact}: they stay in host memory")
            on_devices = False
    return (resident_source if on_devices else host_source)(arrays, mesh, take)


def _free_bytes(mesh: Mesh) -> float:
    """Free memory of the fullest of this process's devices; infinite where it is unknown."""
    known = [stats for device in mesh.local_devices if (stats := device.memory_stats())]
    free = [own["bytes_limit"] - own["bytes_in_use"] for own in known if "bytes_limit" in own]
    return min(free, default=math.inf)
