"""Segmentation losses on logits [B, H, W] and masks [B, H, W] in 0..1."""

import jax
import jax.numpy as jnp
import optax


def focal_loss(logits: jax.Array, masks: jax.Array, alpha: float, gamma: float) -> jax.Array:
    """Focal loss of each pixel, [B, H, W]; alpha weighs the anomalous pixels (Lin et al., 2017)."""
    return optax.sigmoid_focal_loss(logits.astype(jnp.float32), masks, alpha=alpha, gamma=gamma)


def per_positive(losses: jax.Array, masks: jax.Array) -> jax.Array:
    """Sum of the pixels' losses over max(1, number of anomalous pixels) of the batch, a scalar.

    A mean over all pixels, nearly all easy and normal, would vanish beside the feature error.
    """
    return losses.sum() / jnp.maximum(1.0, masks.sum())


def dice_loss(logits: jax.Array, masks: jax.Array, *, factor: float = 1.0) -> jax.Array:
    """1 - (factor * sum(p t) + 1) / (sum(p^2) + sum(t^2) + 1) of each image, [B].

    `factor` is 1 in OneNIP, where a perfect prediction scores 0.5; 2 gives the usual Dice.
    """
    p = jax.nn.sigmoid(logits.astype(jnp.float32))
    overlap = jnp.einsum("bhw,bhw->b", p, masks, precision=jax.lax.Precision.HIGHEST)
    total = jnp.square(p).sum((1, 2)) + jnp.square(masks).sum((1, 2))
    return 1 - (factor * overlap + 1) / (total + 1)
