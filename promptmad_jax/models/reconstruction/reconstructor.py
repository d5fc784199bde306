"""The prompt-based feature reconstructor of OneNIP, optionally guided by text (PromptMAD).

Source: OneNIP (ECCV 2024), as re-specified.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.models.layers.attention import Attention, Text
from promptmad_jax.models.layers.basic import Mlp, linear, xavier
from promptmad_jax.models.layers.dropout import dropout
from promptmad_jax.models.layers.norm import layer_norm
from promptmad_jax.models.reconstruction.encoder import FeatureEncoder, ReconstructorConfig
from promptmad_jax.models.reconstruction.pairs import interleave, separate
from promptmad_jax.runtime.key_streams import KeyStreams


class DecoderLayer(nnx.Module):
    """Bidirectional: the prompt attends to the image, then the image to the updated prompt."""

    def __init__(self, config: ReconstructorConfig, text: bool, rngs: KeyStreams):
        self.prompt_to_image, self.image_to_prompt = (
            Attention(config.width, config.heads, rngs, text_gate=text) for _ in range(2)
        )
        self.mlp = Mlp(config.width, config.mlp_width, rngs)
        self.norm1, self.norm2, self.norm3 = (layer_norm(config.width, rngs) for _ in range(3))
        self.rate = config.dropout

    def __call__(self, prompt, image, position, allowed, text, rngs):
        options = {"allowed": allowed, "text": text, "rate": self.rate, "rngs": rngs}
        options["fused"] = rngs is None
        attended = self.prompt_to_image(prompt + position, image + position, image, **options)
        prompt = self.norm1(prompt + dropout(attended, self.rate, rngs))
        prompt = self.norm2(prompt + dropout(self.mlp(prompt), self.rate, rngs))
        attended = self.image_to_prompt(image + position, prompt + position, prompt, **options)
        return prompt, self.norm3(image + dropout(attended, self.rate, rngs))


class Reconstructor(FeatureEncoder):
    """Rebuilds an image's features from a normal prompt image of its class.

    Args:
        config: sizes.
        channels: C of the features.
        grid: (h, w).
        text_width: width d of the text tokens; 0 builds OneNIP, without any text.
    """

    def __init__(
        self,
        config: ReconstructorConfig,
        channels: int,
        grid: tuple[int, int],
        text_width: int,
        rngs: KeyStreams,
    ):
        super().__init__(config, channels, grid, rngs)
        width = config.width
        in_decoder = bool(text_width) and config.text_in_decoder
        names = [f"layer_{i}" for i in range(config.decoder_layers)]
        self.decoder = nnx.Dict({name: DecoderLayer(config, in_decoder, rngs) for name in names})
        self.final_attention = Attention(width, config.heads, rngs, text_gate=in_decoder)
        self.final_norm = layer_norm(width, rngs)
        self.has_text = bool(text_width)
        self.text_in_prompt = bool(text_width) and config.text_in_prompt
        if self.has_text:
            self.text_proj, self.text_norm = (
                linear(text_width, width, rngs),
                layer_norm(width, rngs),
            )
        if self.text_in_prompt:
            self.prompt_text_attention = Attention(width, config.heads, rngs, init=xavier)
            self.prompt_text_gate = nnx.Param(jnp.zeros(()))

    def encode_pairs(
        self, features: jax.Array, prompt: jax.Array, rngs: KeyStreams | None
    ) -> tuple[jax.Array, jax.Array]:
        """Encodes B pairs [2B, h, w, C] and their prompts [B, h, w, C] as one batch: tokens
        [2B, N, D] and [B, N, D]."""
        *pair, prompt = separate(self.encode(interleave(*separate(features, 2), prompt), rngs), 3)
        return interleave(*pair), prompt

    def fuse_prompt(self, prompt: jax.Array, text: Text | None) -> jax.Array:
        """Adds the text that the prompt tokens [B, N, D] attend to: the tokens of a class bank."""
        if not self.text_in_prompt:
            return prompt
        text = self._project(text)
        read = self.prompt_text_attention(prompt, text.tokens, text.tokens, allowed=text.allowed)
        return prompt + jnp.tanh(self.prompt_text_gate[...]).astype(read.dtype) * read

    def decode(
        self, prompt: jax.Array, image: jax.Array, text: Text | None, rngs: KeyStreams | None = None
    ) -> jax.Array:
        """Tokens of the prompt and the image, both [B, N, D], to features [B, h, w, C]."""
        text = self._project(text) if self.has_text else None
        position, allowed = self._position(len(image)).astype(image.dtype), self._allowed()
        for i in range(self.config.decoder_layers):
            prompt, image = self.decoder[f"layer_{i}"](prompt, image, position, allowed, text, rngs)
        attended = self.final_attention(
            prompt + position,
            image + position,
            image,
            text=text,
            rate=self.config.dropout,
            rngs=rngs,
            fused=rngs is None,
        )
        tokens = self.final_norm(prompt + dropout(attended, self.config.dropout, rngs))
        return self._features(tokens)

    def _project(self, text: Text) -> Text:
        tokens, mask = text
        if self.config.text_tokens == "normal":
            tokens, mask = tokens[:, :1], mask[:, :1]
        return Text(self.text_norm(self.text_proj(tokens)), mask)
