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
from promptmad_jax.runtime.mesh import (
    batch_sharding,
    placed_shapes,
    process_rows,
    replicate,
    replicated,
)
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
        # The images class by class: where each image's class begins in it, and its size.
        self._by_class = np.argsort(self.class_ids, kind="stable")
        _, own, counts = np.unique(self.class_ids, return_inverse=True, return_counts=True)
        self._starts, self._counts = (np.cumsum(counts) - counts)[own], counts[own]
        self._permutation = functools.lru_cache(maxsize=4)(self._draw_permutation)

    def __call__(self, step: int) -> BatchIndices:
        """The batch of step `step`, counted from 0."""
        positions = step * self.batch_size + np.arange(self.batch_size)
        epochs, offsets = np.divmod(positions, len(self.class_ids))
        image = np.empty(self.batch_size, np.int32)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            image[here] = self._permutation(int(epoch))[offsets[here]]
        rng = np.random.default_rng([self.seed, 1, step])
        member = self._starts[image] + rng.integers(0, self._counts[image])
        prompt = self._by_class[member].astype(np.int32)
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


# A TPU tiles the last two dimensions; over the first one, rows of whole tiles are gathered where
# they lie, and rows of any other form are laid out anew, all of them, in every step.
_LANES = 128


class _PackedRows:
    """Rows [N, ...] of an array that is stored as [N, K, 128], zeros at the end of each."""

    def __init__(self, packed: jax.Array, shape: tuple[int, ...]):
        self._packed, self._shape = packed, shape

    def __getitem__(self, rows: Any) -> jax.Array:
        taken = self._packed[rows].reshape(len(rows), -1)
        return taken[:, : math.prod(self._shape)].reshape(len(rows), *self._shape)


def _pack(x: np.ndarray) -> np.ndarray:
    """[N, ...] to [N, K, 128]; numbers per row stay [N]."""
    if x.ndim == 1:
        return x
    flat = x.reshape(len(x), -1)
    if rest := -flat.shape[1] % _LANES:
        flat = np.pad(flat, ((0, 0), (0, rest)))
    return flat.reshape(len(x), -1, _LANES)


def _packed_shape(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The shape and type of `_pack` of an array."""
    shape = x.shape if x.ndim == 1 else (len(x), -(-math.prod(x.shape[1:]) // _LANES), _LANES)
    return jax.ShapeDtypeStruct(shape, x.dtype)


def _packed_cut(arrays: Any, mesh: Mesh, take: Take) -> Callable[..., Any]:
    """The jitted cut of a batch from `arrays`, whose leaves it takes packed."""
    shapes = [x.shape[1:] for x in jax.tree.leaves(arrays)]
    structure = jax.tree.structure(arrays)

    def cut(packed: list[jax.Array], indices: BatchIndices) -> Any:
        rows = [
            _PackedRows(x, shape) if shape else x for x, shape in zip(packed, shapes, strict=True)
        ]
        return take(jax.tree.unflatten(structure, rows), indices)

    return jax.jit(cut, out_shardings=batch_sharding(mesh))


def resident_source(arrays: Any, mesh: Mesh, take: Take = take) -> Source:
    """Keeps arrays on every device, so that a global permutation needs no communication."""
    packed = [replicate(_pack(x), mesh) for x in jax.tree.leaves(arrays)]
    return functools.partial(_packed_cut(arrays, mesh, take), packed)


def trace_cut(arrays: Any, batch_size: int, mesh: Mesh, take: Take = take) -> jax.stages.Traced:
    """The cut of a batch from `arrays`, a tree of shapes and types, to be compiled."""
    packed = [_packed_shape(x) for x in jax.tree.leaves(arrays)]
    ids = jax.ShapeDtypeStruct((batch_size,), np.int32)
    inputs = placed_shapes((packed, BatchIndices(ids, ids, ids)), replicated(mesh))
    return _packed_cut(arrays, mesh, take).trace(*inputs)


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
