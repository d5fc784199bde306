"""The segmentor's logit, which with a memory is a correction of its distance."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from promptmad_jax.models.layers.pixel_shuffle import fold


class Correction(NamedTuple):
    """A logit: `delta` itself or, with a memory, scale (distance + delta) + offset.

    So delta = 0 leaves the memory's map.

    Attributes:
        delta: [B, 4h, 4w], of the segmentor.
        distance: [B, 4h, 4w], of the memory; None without one, as are the others.
        scale, offset: scalars, learned.
    """

    delta: jax.Array
    distance: jax.Array | None = None
    scale: jax.Array | None = None
    offset: jax.Array | None = None

    def logit(self) -> jax.Array:
        """The logit [B, 4h, 4w]."""
        if self.distance is None:
            return self.delta
        return self.scale * (self.distance + self.delta) + self.offset

    def corrected(self, logit: jax.Array, knee: float) -> jax.Array | None:
        """The memory's distance d with the change x that a logit makes, softened beyond the knee k.

            d + sign(x) k log(1 + |x| / k)

        Pseudo-anomalies teach the change what they look like: it may tip the scales and not
        overrule a distance. The logarithm, unlike a bound, keeps the order of large changes.

        Returns:
            [B, 4h, 4w] in standard deviations of normal patches, or None without a memory.
        """
        if self.distance is None:
            return None
        change = (logit - self.offset) / self.scale - self.distance
        return self.distance + jnp.sign(change) * knee * jnp.log1p(jnp.abs(change) / knee)

    def plus(self, delta: jax.Array) -> "Correction":
        """The correction with more added to it."""
        return self._replace(delta=self.delta + delta)

    def folded(self) -> "Correction":
        """The same, folded to [B, 2h, 2w, 4]."""
        distance = None if self.distance is None else fold(self.distance)
        return self._replace(delta=fold(self.delta), distance=distance)
