"""OneNIP: reconstruction from one normal prompt image, and a supervised refiner (ECCV 2024)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.layers.attention import Text
from promptmad_jax.models.layers.basic import ConvTranspose2x2, conv, conv_transpose_2x2, linear
from promptmad_jax.models.layers.norm import BatchNorm
from promptmad_jax.models.reconstruction.encoder import ReconstructorConfig
from promptmad_jax.models.reconstruction.memory import Match
from promptmad_jax.models.reconstruction.outputs import Outputs
from promptmad_jax.models.reconstruction.pairs import for_both
from promptmad_jax.models.reconstruction.reconstructor import Reconstructor
from promptmad_jax.runtime.field_types import NonNegativeInt, Width
from promptmad_jax.runtime.key_streams import KeyStreams


@dataclass(frozen=True)
class RefinerConfig:
    """OneNIP's refiner.

    Attributes:
        width: channels.
        norm_group: images that share BatchNorm statistics; 0 for the whole batch.
    """

    width: Width = 128
    norm_group: NonNegativeInt = 0


class OneNIP(nnx.Module):
    """Features of an image and of a prompt to a reconstruction and a logit."""

    def __init__(
        self,
        reconstructor: ReconstructorConfig,
        refiner: RefinerConfig,
        channels: int,
        grid: tuple[int, int],
        rngs: KeyStreams,
    ):
        self.reconstructor = Reconstructor(reconstructor, channels, grid, 0, rngs)
        self.refiner = Refiner(channels, refiner.width, refiner.norm_group, rngs)

    def encode_prompt(self, neck: jax.Array, text: Text | None) -> jax.Array:
        """Prompt features [K, h, w, C] to the tokens [K, N, D] of a class bank."""
        del text
        return self.reconstructor.encode(neck)

    def predict(
        self,
        features: Features,
        prompt: jax.Array,
        text: Text | None,
        match: Match | None = None,
    ) -> Outputs:
        """Inference: features of B images, prompt tokens [B, N, D] of their classes."""
        del text, match
        image = self.reconstructor.encode(features.neck)
        reconstruction = self.reconstructor.decode(prompt, image, None)
        return Outputs(
            reconstruction, self.refiner(jnp.abs(reconstruction - features.neck), False), None
        )

    def train_forward(
        self,
        features: Features,
        prompt: jax.Array,
        text: Text | None,
        mask: jax.Array,
        rngs: KeyStreams | None,
        match: Match | None = None,
    ) -> Outputs:
        """Training: features of B pairs of images, 2B rows; prompt [B, h, w, C]."""
        del text, mask, match
        image, prompt = self.reconstructor.encode_pairs(features.neck, prompt, rngs)
        reconstruction = self.reconstructor.decode(for_both(prompt), image, None, rngs)
        return Outputs(
            reconstruction, self.refiner(jnp.abs(reconstruction - features.neck), True), None
        )


class UpBlock(nnx.Module):
    """3x3 convolution, BatchNorm, ReLU and a 2x2 transposed convolution: twice the resolution."""

    def __init__(self, features_in: int, width: int, group_size: int, rngs: KeyStreams):
        self.conv = conv(features_in, width, rngs, use_bias=False)
        self.norm = BatchNorm(width, group_size=group_size)
        self.up = ConvTranspose2x2(width, width, rngs)

    def before_up(self, x: jax.Array, train: bool) -> jax.Array:
        """All but the transposed convolution."""
        return jax.nn.relu(self.norm(self.conv(x), train))


class Refiner(nnx.Module):
    """|reconstruction - features| [B, h, w, C] to a logit [B, 4h, 4w]."""

    def __init__(self, channels: int, width: int, group_size: int, rngs: KeyStreams):
        self.up1 = UpBlock(channels, width, group_size, rngs)
        self.up2 = UpBlock(width, width, group_size, rngs)
        self.predictor = linear(width, 1, rngs)

    def __call__(self, error: jax.Array, train: bool) -> jax.Array:
        x = self.up1.up(self.up1.before_up(error, train))
        x = self.up2.before_up(x, train).astype(jnp.float32)
        # Nothing lies between the last transposed convolution and the predictor, so their weights
        # are multiplied first: one channel at stride 4 in place of `width`.
        up, (weight, bias) = self.up2.up, (self.predictor.kernel[...], self.predictor.bias[...])
        return conv_transpose_2x2(x, up.kernel[...] @ weight, up.bias[...] @ weight + bias)[..., 0]
