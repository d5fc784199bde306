"""Zero-shot maps of many images in fixed-size batches."""

from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from promptmad_jax.evaluation.inference import Placement
from promptmad_jax.models.functional import Params
from promptmad_jax.models.zero_shot.detector import FrozenClip, ZeroShotDetector
from promptmad_jax.models.zero_shot.prompts import PromptTokens
from promptmad_jax.runtime.mesh import batch_sharding, replicated


class ZeroShotMapMaker:
    """A detector with its frozen weights on a mesh.

    If several processes share the mesh, all of them call the same methods in the same order.

    Args:
        batch_size: images per forward pass, rounded up to a multiple of the devices.
    """

    def __init__(self, detector: ZeroShotDetector, frozen: FrozenClip, mesh: Mesh, batch_size: int):
        self.detector, self.frozen = detector, frozen
        self._placement = Placement(mesh, batch_size)
        self.batch_size = self._placement.batch_size
        self._states = jax.jit(detector.text_states, out_shardings=replicated(mesh))
        self._maps = zero_shot_maps(detector, mesh)

    def states(self, params: Params, tokens: PromptTokens) -> jax.Array:
        """The unit vectors [K + 1, d] of the states, the normal one first."""
        return self._states(params, self.frozen, tokens)

    def batches(
        self, params: Params, states: jax.Array, own: np.ndarray, images: np.ndarray
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields `ZeroShotDetector.readout` of images uint8 [n, S, S, 3], batch by batch.

        Several processes share the work: each passes all images, and gets all results.

        Args:
            own: bool [K + 1], the states of the images' product; `own_types` [B, S, S, K + 1] are
                the probabilities among them. All other results are among all states.
        """
        for (batch,), count in self._placement.sized(len(images)).batches(images):
            maps = self._maps(params, self.frozen, states, own, batch)
            yield {name: np.asarray(value)[:count] for name, value in maps.items()}


def zero_shot_maps(detector: ZeroShotDetector, mesh: Mesh) -> Callable[..., dict[str, jax.Array]]:
    """The jitted `(params, frozen, states, own, images) -> readout`; see `ZeroShotMapMaker`."""

    def compute(params, frozen, states, own, images) -> dict[str, jax.Array]:
        features = detector.features(params, frozen, images)
        own_types = detector.readout(features, states, own)["types"]
        return detector.readout(features, states) | {"own_types": own_types}

    inputs = (None,) * 4 + (batch_sharding(mesh),)
    return jax.jit(compute, in_shardings=inputs, out_shardings=replicated(mesh))
