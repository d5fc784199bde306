"""Results of the reconstruction models, and their anomaly maps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from promptmad_jax.models.layers.resize import resize_align_corners


class Outputs(NamedTuple):
    """Results of a forward pass.

    Attributes:
        reconstruction: [B, h, w, C], the rebuilt features.
        coarse_logit: [B, 4h, 4w], the refiner's or segmentor's logit at stride 4; None for a model
            without segmentation.
        refined_logit: [B, 4h, 4w] after the diffusion; None for a model without one. In training
            the denoiser's prediction at one random step.
        noise_error: [B, 4h, 4w], predicted minus true noise, in training with the epsilon objective
            only, where refined_logit is None.
    """

    reconstruction: jax.Array
    coarse_logit: jax.Array | None
    refined_logit: jax.Array | None
    noise_error: jax.Array | None = None


def reconstruction_map(reconstruction: jax.Array, features: jax.Array, size: int) -> jax.Array:
    """L2 distance over channels, enlarged from [B, h, w] to [B, size, size]; not divided by C."""
    distance = jnp.sqrt(jnp.square(reconstruction - features).sum(-1))
    return resize_align_corners(distance, size, size)


def full_size_logit(logit: jax.Array, size: int) -> jax.Array:
    """A stride-4 logit enlarged to the input size, corners aligned: [B, size, size]."""
    return resize_align_corners(logit, size, size)


def anomaly_maps(outputs: Outputs, features: jax.Array, size: int) -> dict[str, jax.Array]:
    """Anomaly maps [B, size, size]: `reconstruction` (a distance) and, where the model has them,
    `coarse` and `refined` (probabilities)."""
    maps = {"reconstruction": reconstruction_map(outputs.reconstruction, features, size)}
    for name, logit in (("coarse", outputs.coarse_logit), ("refined", outputs.refined_logit)):
        if logit is not None:
            maps[name] = jax.nn.sigmoid(full_size_logit(logit, size))
    return maps


def fuse(reconstruction, segmentation, scale):
    """OneNIP's fused map: half the reconstruction map, half the segmentation brought to its scale.

    `scale` is (max + min) / 2 of reconstruction maps: over the whole test set in the reference,
    over calibration images here by default.
    """
    return 0.5 * reconstruction + 0.5 * scale * segmentation
