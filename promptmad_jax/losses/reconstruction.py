"""The reconstruction loss."""

import jax
import jax.numpy as jnp


def feature_error(reconstruction: jax.Array, target: jax.Array) -> jax.Array:
    """Squared error of each image, mean over tokens and channels: [B, h, w, C] twice to [B]."""
    return jnp.square(reconstruction - target).mean((1, 2, 3), dtype=jnp.float32)
