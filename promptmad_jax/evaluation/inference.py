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
        # Compiled where it is called first: most uses never ask for the steps.
        self._steps = jax.jit(
            detector.diffusion_steps,
            in_shardings=(None,) * 4 + (split, split),
            out_shardings=whole,
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

    def diffusion_steps(
        self, params: Params, stats: Stats, bank: Bank, images: np.ndarray, class_ids: np.ndarray
    ) -> np.ndarray:
        """The mask's logit after each diffusion step, float32 [T, n, S / 4, S / 4], of images as in
        `maps`; for a model with a diffusion alone."""
        batches = []
        for rows in self._slices(len(images)):
            count = rows.stop - rows.start
            inputs = self._put(images[rows], class_ids[rows])
            steps = self._steps(params, stats, self.frozen, bank, *inputs)
            batches.append(np.asarray(steps)[:, :count])
        return np.concatenate(batches, axis=1)

    def _slices(self, count: int) -> Iterator[slice]:
        for start in range(0, count, self.batch_size):
            yield slice(start, min(start + self.batch_size, count))

    def _one(self, params, stats, bank, images, class_ids):
        inputs = self._put(images, class_ids)
        maps = self._maps(params, stats, self.frozen, bank, *inputs)
        return {name: np.asarray(value)[: len(images)] for name, value in maps.items()}

    def _put(self, images, class_ids):
        """Images and class ids, padded to the batch size, on the mesh."""
        pad = lambda x: np.concatenate([x, np.repeat(x[-1:], self.batch_size - len(x), 0)])
        return jax.device_put((pad(images), pad(np.asarray(class_ids, np.int32))), self._sharding)
