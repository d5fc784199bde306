"""Maps of many images in fixed-size batches, so that nothing recompiles."""

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
        self.batch_size = -(-batch_size // mesh.size) * mesh.size
        self.sharding = batch_sharding(mesh)
        self.own_rows = process_rows(self.sharding, self.batch_size)

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


class MapMaker:
    """A detector with its arrays and class bank on a mesh.

    Where several processes hold the mesh, all of them call the same methods in the same order.

    Args:
        batch_size: images a forward pass, rounded up to a multiple of the devices.
        prompts: uint8 [K, S, S, 3], one prompt image a class.
    """

    def __init__(
        self, detector: Detector, frozen: Frozen, mesh: Mesh, batch_size: int, prompts: np.ndarray
    ):
        self.detector, self.frozen, self.prompts = detector, frozen, prompts
        self._placement = Placement(mesh, batch_size)
        self.batch_size = self._placement.batch_size
        whole, split = replicated(mesh), batch_sharding(mesh)
        inputs = (None,) * 4 + (split, split)
        self._bank = jax.jit(detector.bank, out_shardings=whole)
        # Compiled where they are called first: most uses never ask for more than one of them.
        self._maps = jax.jit(detector.maps, in_shardings=inputs, out_shardings=whole)
        self._own_maps = jax.jit(detector.maps, in_shardings=inputs, out_shardings=split)
        self._steps = jax.jit(detector.diffusion_steps, in_shardings=inputs, out_shardings=whole)

    def bank(self, params: Params, stats: Stats) -> Bank:
        """The class bank of these parameters."""
        return self._bank(params, stats, self.frozen, self.prompts)

    def maps(
        self, params: Params, stats: Stats, bank: Bank, images: np.ndarray, class_ids: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Maps float32 [n, S, S] of images uint8 [n, S, S, 3] of classes int [n].

        Several processes share the work: each gives all images, and gets all maps.
        """
        batches = [
            {name: np.asarray(value)[:count] for name, value in maps.items()}
            for maps, count in self._batches(self._maps, params, stats, bank, images, class_ids)
        ]
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    def own_maps(
        self,
        params: Params,
        stats: Stats,
        bank: Bank,
        images: np.ndarray,
        class_ids: np.ndarray,
        most: int,
    ) -> dict[str, np.ndarray]:
        """As `maps`, but each process gives images of its own, possibly none, and gets their maps.

        Args:
            most: the largest number of images that any process gives.
        """
        size, parts = len(self._placement.own_rows), []
        for start in range(0, max(most, 1), size):
            rows = slice(start, start + size)
            ids = np.asarray(class_ids[rows], np.int32)
            inputs = self._placement.put(_pad(images[rows], size), _pad(ids, size))
            maps = self._own_maps(params, stats, self.frozen, bank, *inputs)
            parts.append({name: _own_part(value) for name, value in maps.items()})
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {name: values[: len(images)] for name, values in joined.items()}

    def diffusion_steps(
        self, params: Params, stats: Stats, bank: Bank, images: np.ndarray, class_ids: np.ndarray
    ) -> np.ndarray:
        """The mask's logit after each diffusion step, float32 [T, n, S / 4, S / 4], of images as in
        `maps`; for a model with a diffusion alone."""
        batches = [
            np.asarray(steps)[:, :count]
            for steps, count in self._batches(self._steps, params, stats, bank, images, class_ids)
        ]
        return np.concatenate(batches, axis=1)

    def _batches(
        self,
        program: Callable,
        params: Params,
        stats: Stats,
        bank: Bank,
        images: np.ndarray,
        class_ids: np.ndarray,
    ) -> Iterator[tuple[Any, int]]:
        """What the program makes of each batch, and how many of its rows are no padding."""
        for inputs, count in self._placement.batches(images, np.asarray(class_ids, np.int32)):
            yield program(params, stats, self.frozen, bank, *inputs), count


def _pad(rows: np.ndarray, size: int) -> np.ndarray:
    """Rows [n, ...] as [size, ...]: the last one repeated, or zeros where there is none."""
    if not len(rows):
        return np.zeros((size, *rows.shape[1:]), rows.dtype)
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), 0)])


def _own_part(array: jax.Array) -> np.ndarray:
    """The rows of a batch that this process holds, in their order."""
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])
