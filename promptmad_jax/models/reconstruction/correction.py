"""The segmentor's logit, which with a memory is a bounded correction of its distance."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from promptmad_jax.models.layers.pixel_shuffle import fold


class Correction(NamedTuple):
    """A logit: `delta` itself or, with a memory, its distance corrected by at most `bound`.

    logit = scale (distance + bound tanh(delta / bound)) + offset, so that delta = 0 leaves the
    memory's map, and the correction cannot overrule a clear distance.

    Attributes:
        delta: [B, 4h, 4w], of the segmentor.
        distance: [B, 4h, 4w], of the memory; None without one, as are the others.
        scale, offset: scalars, learned.
        bound: in standard deviations of normal patches.
    """

    delta: jax.Array
    distance: jax.Array | None = None
    scale: jax.Array | None = None
    offset: jax.Array | None = None
    bound: float | None = None

    def logit(self) -> jax.Array:
        """The logit [B, 4h, 4w]."""
        if self.distance is None:
            return self.delta
        corrected = self.distance + self.bound * jnp.tanh(self.delta / self.bound)
        return self.scale * corrected + self.offset

    def distance_of(self, logit: jax.Array) -> jax.Array | None:
        """The corrected distance behind a logit, in standard deviations; None without a memory."""
        return None if self.distance is None else (logit - self.offset) / self.scale

    def plus(self, delta: jax.Array) -> "Correction":
        """The correction with more added to it."""
        return self._replace(delta=self.delta + delta)

    def folded(self) -> "Correction":
        """The same, folded to [B, 2h, 2w, 4]."""
        distance = None if self.distance is None else fold(self.distance)
        return self._replace(delta=fold(self.delta), distance=distance)
