"""A detector with made-up arrays: nothing that is measured depends on their values."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, Sharding

from promptmad_jax.evaluation.inference import MapMaker
from promptmad_jax.models.functional import Params, Stats
from promptmad_jax.models.reconstruction.detector import Bank, Detector, Frozen
from promptmad_jax.runtime.mesh import replicated

_SCALE = 0.02


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        model: its name. class_count: K, of the class bank.
    """

    model: str
    detector: Detector
    frozen: Frozen
    mesh: Mesh
    class_count: int

    @cached_property
    def state(self) -> tuple[Params, Stats]:
        """Parameters and statistics, random; drawing them as training does takes far longer."""
        shapes = jax.eval_shape(self.detector.network.init, jax.random.key(0))
        params, stats = make_up(shapes, replicated(self.mesh))
        return params, jax.tree.map(lambda x: x * 0 + 1, stats)

    @cached_property
    def bank(self) -> Bank:
        """A class bank of made-up prompt tokens, with the true text tokens."""
        prompts = jax.eval_shape(self.prompts)
        shapes = jax.eval_shape(self.detector.bank, *self.state, self.frozen, prompts)
        return Bank(make_up(shapes.prompt, replicated(self.mesh)), self.frozen.text)

    def prompts(self) -> np.ndarray:
        """uint8 [K, S, S, 3]."""
        return self.images(self.class_count)[0]

    def images(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 [count, S, S, 3] and their classes int32 [count]."""
        size = self.detector.image_size
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        return images, np.arange(count, dtype=np.int32) % self.class_count

    def map_maker(self, batch_size: int) -> MapMaker:
        """Inference as evaluation and prediction use it."""
        return MapMaker(self.detector, self.frozen, self.mesh, batch_size, self.prompts())

    def fits(self, batch_size: int) -> int:
        """The batch size, rounded up to a multiple of the devices."""
        return -(-batch_size // self.mesh.size) * self.mesh.size

    def fields(self) -> dict[str, Any]:
        """What the rows say of it."""
        return {
            "model": self.model,
            "backbone": self.detector.backbone.architecture.name,
            "image_size": self.detector.image_size,
            "dtype": self.detector.backbone.dtype,
            "classes": self.class_count,
            "devices": self.mesh.size,
        }


def make_up(shapes: Any, sharding: Sharding | Any, seed: int = 0) -> Any:
    """Arrays for a tree of shapes: small normal numbers, zeros for integers.

    Args:
        sharding: of all leaves, or a tree of one for each.
    """
    rng = np.random.default_rng(seed)

    def one(leaf):
        if not np.issubdtype(leaf.dtype, np.floating):
            return np.zeros(leaf.shape, leaf.dtype)
        return rng.standard_normal(leaf.shape, np.float32) * np.float32(_SCALE)

    return jax.device_put(jax.tree.map(one, shapes), sharding)
