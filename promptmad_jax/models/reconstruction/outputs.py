"""Results of the reconstruction models, and their anomaly maps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from promptmad_jax.models.layers.resize import resize_align_corners
from promptmad_jax.models.reconstruction.memory import Match


class Outputs(NamedTuple):
    """Results of a forward pass.

    Attributes:
        reconstruction: [B, h, w, C], the rebuilt features; None for a model without one.
        coarse_logit: [B, 4h, 4w], the refiner's or segmentor's logit; None for a model without
            segmentation.
        refined_logit: [B, 4h, 4w] after the diffusion; None for a model without one. In training
            the denoiser's prediction at one random step.
        noise_error: [B, 4h, 4w], predicted minus true noise, in training with the epsilon objective
            only, where refined_logit is None.
        corrected: [B, 4h, 4w], in inference with a memory: its distance as the model corrects it.
    """

    reconstruction: jax.Array | None
    coarse_logit: jax.Array | None
    refined_logit: jax.Array | None
    noise_error: jax.Array | None = None
    corrected: jax.Array | None = None


def reconstruction_map(reconstruction: jax.Array, features: jax.Array, size: int) -> jax.Array:
    """L2 distance over channels, enlarged from [B, h, w] to [B, size, size]; not divided by C."""
    distance = jnp.sqrt(jnp.square(reconstruction - features).sum(-1))
    return resize_align_corners(distance, size, size)


def full_size_logit(logit: jax.Array, size: int) -> jax.Array:
    """A logit enlarged to the input size, corners aligned: [B, size, size]."""
    return resize_align_corners(logit, size, size)


def anomaly_maps(
    outputs: Outputs, features: jax.Array, size: int, match: Match | None = None
) -> dict[str, jax.Array]:
    """Anomaly maps [B, size, size] that the model has: `reconstruction` (a distance), `memory` and
    `corrected` (distances in standard deviations), `coarse` and `refined` (probabilities)."""
    maps = {}
    if outputs.reconstruction is not None:
        maps["reconstruction"] = reconstruction_map(outputs.reconstruction, features, size)
    if match is not None:
        # By way of four times the grid, as the corrected map, which it equals before any training.
        rows, columns = (4 * side for side in features.shape[1:3])
        fine = resize_align_corners(match.distance, rows, columns)
        maps["memory"] = resize_align_corners(fine, size, size)
    if outputs.corrected is not None:
        maps["corrected"] = resize_align_corners(outputs.corrected, size, size)
    for name, logit in (("coarse", outputs.coarse_logit), ("refined", outputs.refined_logit)):
        if logit is not None:
            maps[name] = jax.nn.sigmoid(full_size_logit(logit, size))
    return maps
