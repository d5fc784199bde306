"""Maps of many images in fixed-size batches, so that nothing recompiles."""

from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from promptmad_jax.models.detector import Bank, Detector, Frozen
from promptmad_jax.models.functional import Params, Stats
from promptmad_jax.runtime.mesh import batch_sharding, replicated


class MapMaker:
    """A detector with its arrays and class bank on a mesh.

    Args:
        batch_size: images a forward pass, rounded up to a multiple of the devices.
        prompts: uint8 [K, S, S, 3], one prompt image a class.
    """

    def __init__(
        self, detector: Detector, frozen: Frozen, mesh: Mesh, batch_size: int, prompts: np.ndarray
    ):
        self.detector, self.frozen, self.prompts = detector, frozen, prompts
        self.batch_size = -(-batch_size // mesh.size) * mesh.size
        whole, split = replicated(mesh), batch_sharding(mesh)
        self._bank = jax.jit(detector.bank, out_shardings=whole)
        self._maps = jax.jit(
            detector.maps, in_shardings=(None,) * 4 + (split, split), out_shardings=whole
        )
        self._sharding = split

    def bank(self, params: Params, stats: Stats) -> Bank:
        """The class bank of these parameters."""
        return self._bank(params, stats, self.frozen, self.prompts)

    def maps(
        self, params: Params, stats: Stats, bank: Bank, images: np.ndarray, class_ids: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Maps float32 [n, S, S] of images uint8 [n, S, S, 3] of classes int [n]."""
        batches = [
            self._one(params, stats, bank, images[rows], class_ids[rows])
            for rows in self._slices(len(images))
        ]
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    def _slices(self, count: int) -> Iterator[slice]:
        for start in range(0, count, self.batch_size):
            yield slice(start, min(start + self.batch_size, count))

    def _one(self, params, stats, bank, images, class_ids):
        count = len(images)
        pad = lambda x: np.concatenate([x, np.repeat(x[-1:], self.batch_size - count, 0)])
        images, ids = jax.device_put(
            (pad(images), pad(np.asarray(class_ids, np.int32))), self._sharding
        )
        maps = self._maps(params, stats, self.frozen, bank, images, ids)
        return {name: np.asarray(value)[:count] for name, value in maps.items()}
