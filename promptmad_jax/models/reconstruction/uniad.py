"""UniAD: reconstruction from learned queries, trained on normal images alone (NeurIPS 2022).

A baseline on OneNIP's parts: backbone, neck, encoder, jitter, neighbour mask and image scores. It
has no prompt and no segmentation, so its only map is that of the reconstruction.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.layers.attention import Attention, Text
from promptmad_jax.models.layers.basic import Mlp
from promptmad_jax.models.layers.dropout import dropout
from promptmad_jax.models.layers.norm import layer_norm
from promptmad_jax.models.reconstruction.encoder import FeatureEncoder, ReconstructorConfig
from promptmad_jax.models.reconstruction.memory import Match
from promptmad_jax.models.reconstruction.outputs import Outputs
from promptmad_jax.models.reconstruction.pairs import separate
from promptmad_jax.runtime.key_streams import KeyStreams


class QueryLayer(nnx.Module):
    """The layer's own queries attend to the encoder's tokens, then to the previous output."""

    def __init__(self, config: ReconstructorConfig, tokens: int, rngs: KeyStreams):
        self.query_embed = nnx.Param(jax.random.normal(rngs.params(), (tokens, config.width)))
        self.memory_attention, self.output_attention = (
            Attention(config.width, config.heads, rngs) for _ in range(2)
        )
        self.mlp = Mlp(config.width, config.mlp_width, rngs)
        self.norm1, self.norm2, self.norm3 = (layer_norm(config.width, rngs) for _ in range(3))
        self.rate = config.dropout

    def __call__(self, output, memory, position, allowed, rngs):
        options = {"allowed": allowed, "rate": self.rate, "rngs": rngs, "fused": rngs is None}
        x = jnp.broadcast_to(self.query_embed[...][None].astype(memory.dtype), memory.shape)
        read = self.memory_attention(x + position, memory + position, memory, **options)
        x = self.norm1(x + dropout(read, self.rate, rngs))
        read = self.output_attention(x + position, output + position, output, **options)
        x = self.norm2(x + dropout(read, self.rate, rngs))
        return self.norm3(x + dropout(self.mlp(x, self.rate, rngs), self.rate, rngs))


class QueryReconstructor(FeatureEncoder):
    """Rebuilds an image's features from learned queries, one per token."""

    def __init__(
        self, config: ReconstructorConfig, channels: int, grid: tuple[int, int], rngs: KeyStreams
    ):
        super().__init__(config, channels, grid, rngs)
        tokens, names = grid[0] * grid[1], [f"layer_{i}" for i in range(config.decoder_layers)]
        self.decoder = nnx.Dict({name: QueryLayer(config, tokens, rngs) for name in names})
        self.final_norm = layer_norm(config.width, rngs)

    def __call__(self, features: jax.Array, rngs: KeyStreams | None = None) -> jax.Array:
        """features [B, h, w, C] to their reconstruction; jitter and dropout where rngs is given."""
        memory = output = self.encode(features, rngs)
        position, allowed = self._position(len(output)).astype(output.dtype), self._allowed()
        for i in range(self.config.decoder_layers):
            output = self.decoder[f"layer_{i}"](output, memory, position, allowed, rngs)
        return self._features(self.final_norm(output))


class UniAD(nnx.Module):
    """Features of an image to a reconstruction."""

    def __init__(
        self,
        reconstructor: ReconstructorConfig,
        channels: int,
        grid: tuple[int, int],
        rngs: KeyStreams,
    ):
        self.reconstructor = QueryReconstructor(reconstructor, channels, grid, rngs)

    def encode_prompt(self, neck: jax.Array, text: Text | None) -> jax.Array:
        """No tokens: [K, 0, D]. A class bank of this model is empty."""
        del text
        return jnp.zeros((len(neck), 0, self.reconstructor.config.width))

    def predict(
        self,
        features: Features,
        prompt: jax.Array,
        text: Text | None,
        match: Match | None = None,
    ) -> Outputs:
        """Inference: features of B images, which alone are read."""
        del prompt, text, match
        return Outputs(self.reconstructor(features.neck), None, None)

    def train_forward(
        self,
        features: Features,
        prompt: jax.Array,
        text: Text | None,
        mask: jax.Array,
        rngs: KeyStreams | None,
        match: Match | None = None,
    ) -> Outputs:
        """Training: features of B pairs of images, 2B rows, of which the clean ones are rebuilt.

        UniAD learns from normal images only: in a jitted step nothing depends on the
        pseudo-anomalies, and XLA leaves out their synthesis and their features.
        """
        del prompt, text, mask, match
        clean, _ = separate(features.neck, 2)
        return Outputs(self.reconstructor(clean, rngs), None, None)
