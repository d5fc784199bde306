"""Maps of images in batches of two sizes, full and lone, so that nothing else is compiled."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from promptmad_jax.models.functional import Params, Stats
from promptmad_jax.models.reconstruction.detector import Bank, Detector, Frozen
from promptmad_jax.runtime.mesh import batch_sharding, process_rows, replicated


class Placement:
    """Batches of one size, split over all devices of a mesh.

    Args:
        batch_size: rounded up to a multiple of the devices.
    """

    def __init__(self, mesh: Mesh, batch_size: int):
        self._mesh = mesh
        self.batch_size = -(-batch_size // mesh.size) * mesh.size
        self.sharding = batch_sharding(mesh)
        self.own_rows = process_rows(self.sharding, self.batch_size)

    def sized(self, count: int) -> "Placement":
        """The placement of `count` images: a lone image is not padded to a full batch."""
        return Placement(self._mesh, 1) if count <= self._mesh.size else self

    def put(self, *own: np.ndarray) -> tuple[jax.Array, ...]:
        """This process's rows of a batch, on the mesh."""
        return tuple(
            jax.make_array_from_process_local_data(
                self.sharding, np.ascontiguousarray(x), (self.batch_size, *x.shape[1:])
            )
            for x in own
        )

    def batches(self, *arrays: np.ndarray) -> Iterator[tuple[tuple[jax.Array, ...], int]]:
        """The rows [n, ...] of all arrays a batch at a time, and how many are no padding."""
        for start in range(0, len(arrays[0]), self.batch_size):
            rows = np.arange(start, min(start + self.batch_size, len(arrays[0])))
            own = _pad(rows, self.batch_size)[self.own_rows]
            yield self.put(*(x[own] for x in arrays)), len(rows)


class InferencePrograms:
    """The jitted programs of a detector on a mesh, with everything that is not trained.

    Each program is compiled when it is first called: most uses need only one of them.

    Args:
        batch_size: images per forward pass, rounded up to a multiple of the devices.
        prompts: uint8 [K, S, S, 3], one prompt image per class.
    """

    def __init__(
        self, detector: Detector, frozen: Frozen, mesh: Mesh, batch_size: int, prompts: np.ndarray
    ):
        self.detector, self.frozen, self.prompts = detector, frozen, prompts
        self.placement = Placement(mesh, batch_size)
        whole, split = replicated(mesh), batch_sharding(mesh)
        inputs = (None,) * 4 + (split,) * 3
        self.bank = jax.jit(detector.bank, out_shardings=whole)
        self.maps = jax.jit(detector.described_maps, in_shardings=inputs, out_shardings=whole)
        self.own_maps = jax.jit(detector.maps, in_shardings=inputs, out_shardings=split)
        self.steps = jax.jit(detector.diffusion_steps, in_shardings=inputs, out_shardings=whole)
        self.describe = jax.jit(detector.describe)


class MapMaker:
    """A detector with the weights of one state: images to anomaly maps.

    Where several processes hold the mesh, all of them call the same methods in the same order.
    """

    def __init__(self, programs: InferencePrograms, params: Params, stats: Stats):
        self.programs, self.params, self.stats = programs, params, stats

    @functools.cached_property
    def bank(self) -> Bank:
        """The class bank of these weights."""
        programs = self.programs
        return programs.bank(self.params, self.stats, programs.frozen, programs.prompts)

    @property
    def image_size(self) -> int:
        """Side S of the images."""
        return self.programs.detector.image_size

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""
        return self.programs.placement.batch_size

    def maps(
        self, images: np.ndarray, class_ids: np.ndarray, image_ids: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Maps float32 [n, S, S] of images uint8 [n, S, S, 3] of classes int [n].

        Several processes share the work: each passes all images, and gets all maps.

        Args:
            image_ids: int [n], rows of the training set that the images are, or are made of; None
                if they are not of it.
        """
        return self.described_maps(images, class_ids, image_ids)[0]

    def described_maps(
        self, images: np.ndarray, class_ids: np.ndarray, image_ids: np.ndarray | None = None
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """As `maps`, and the images' descriptions float32 [n, D]; see `Detector.describe`."""
        batches = [
            jax.tree.map(lambda value, count=count: np.asarray(value)[:count], results)
            for results, count in self._batches(self.programs.maps, images, class_ids, image_ids)
        ]
        return jax.tree.map(lambda *parts: np.concatenate(parts), *batches)

    def own_maps(
        self, images: np.ndarray, class_ids: np.ndarray, largest_share: int
    ) -> dict[str, np.ndarray]:
        """As `maps`, but each process passes images of its own, possibly none, and gets their maps.

        Args:
            largest_share: the largest number of images that any process passes.
        """
        placement, parts = self.programs.placement, []
        size = len(placement.own_rows)
        for start in range(0, max(largest_share, 1), size):
            rows = slice(start, start + size)
            ids = np.asarray(class_ids[rows], np.int32)
            inputs = _pad(images[rows], size), _pad(ids, size), _unknown(size)
            inputs = placement.put(*inputs)
            maps = self._call(self.programs.own_maps, *inputs)
            parts.append({name: _own_part(value) for name, value in maps.items()})
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {name: values[: len(images)] for name, values in joined.items()}

    def diffusion_steps(self, images: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
        """The mask's logit after each diffusion step, float32 [T, n, S / 4, S / 4], of images as in
        `maps`; only for a model with a diffusion."""
        batches = [
            np.asarray(steps)[:, :count]
            for steps, count in self._batches(self.programs.steps, images, class_ids)
        ]
        return np.concatenate(batches, axis=1)

    def descriptions(self, images: np.ndarray) -> np.ndarray:
        """Descriptions float32 [n, D] of images uint8 [n, S, S, 3]; see `Detector.describe`."""
        parts, size = [], self.programs.placement.sized(len(images)).batch_size
        for start in range(0, len(images), size):
            batch = _pad(images[start : start + size], size)
            parts.append(np.asarray(self.programs.describe(self.programs.frozen, batch)))
        return np.concatenate(parts)[: len(images)]

    def _batches(
        self,
        program: Callable,
        images: np.ndarray,
        class_ids: np.ndarray,
        image_ids: np.ndarray | None = None,
    ) -> Iterator[tuple[Any, int]]:
        """Yields the program's result for each batch, and how many of its rows are not padding."""
        rows = _unknown(len(images)) if image_ids is None else image_ids
        ids = np.asarray(class_ids, np.int32), np.asarray(rows, np.int32)
        placement, ahead = self.programs.placement.sized(len(images)), None
        for inputs, count in placement.batches(images, *ids):
            results = self._call(program, *inputs), count
            # The next batch is on its way to the devices before this one is waited for.
            if ahead is not None:
                yield ahead
            ahead = results
        if ahead is not None:
            yield ahead

    def _call(self, program: Callable, *inputs: jax.Array) -> Any:
        return program(self.params, self.stats, self.programs.frozen, self.bank, *inputs)


def _unknown(count: int) -> np.ndarray:
    """Rows of the training set for images that are not of it."""
    return np.full(count, -1, np.int32)


def _pad(rows: np.ndarray, size: int) -> np.ndarray:
    """Rows [n, ...] as [size, ...]: the last one repeated, or zeros where there is none."""
    if not len(rows):
        return np.zeros((size, *rows.shape[1:]), rows.dtype)
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), 0)])


def _own_part(array: jax.Array) -> np.ndarray:
    """The rows of a batch that this process holds, in their order."""
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])
