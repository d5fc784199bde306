"""CLIP's vision tower, a ViT, in Flax, used functionally."""

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.clip.config import ClipVisionConfig
from promptmad_jax.clip.positions import resize_positions
from promptmad_jax.clip.transformer import layer_norm, make_layers, make_projection
from promptmad_jax.runtime.key_streams import KeyStreams

# Of pixels in 0..1, red, green, blue.
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipVision(nnx.Module):
    """Images to one vector per image: `embed`, `run_layers` on `layers`, `pool`."""

    def __init__(self, config: ClipVisionConfig, rngs: KeyStreams):
        self.grid, side = config.grid, (config.patch, config.patch)
        self.patch_embedding = nnx.Conv(
            3, config.width, side, strides=side, padding="VALID", use_bias=False, rngs=rngs
        )
        normal = nnx.initializers.normal(config.width**-0.5)
        self.class_embedding = nnx.Param(normal(rngs.params(), (config.width,)))
        positions = (1 + config.grid**2, config.width)
        self.position_embedding = nnx.Param(normal(rngs.params(), positions))
        self.pre_norm = layer_norm(config, rngs)
        self.layers = make_layers(config, rngs)
        self.post_norm = layer_norm(config, rngs)
        self.projection = make_projection(config, rngs)

    def embed(self, images: jax.Array) -> jax.Array:
        """Images to the first layer's input.

        Args:
            images: float32 [B, H, W, 3], normalised with `IMAGE_MEAN` and `IMAGE_STD`. Any size
                from one patch up; pixels beyond the last whole patch are not read.

        Returns:
            [B, 1 + h w, D]: class token and patches with positions, after the first LayerNorm.
        """
        patches = self.patch_embedding(images)
        batch, height, width, channels = patches.shape
        patches = patches.reshape(batch, height * width, channels)
        first = jnp.broadcast_to(self.class_embedding[...][None, None], (batch, 1, channels))
        positions = resize_positions(self.position_embedding[...], self.grid, (height, width))
        return self.pre_norm(jnp.concatenate([first, patches], axis=1) + positions[None])

    def pool(self, x: jax.Array) -> jax.Array:
        """States of the last layer [B, L, D], class token first, to embeddings [B, P]."""
        pooled = self.post_norm(x[:, 0])
        return pooled if self.projection is None else self.projection(pooled)
