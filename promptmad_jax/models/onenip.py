"""OneNIP: reconstruction from one normal prompt image, and a supervised refiner (ECCV 2024)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.models.attention import Text
from promptmad_jax.models.encoder import ReconstructorConfig
from promptmad_jax.models.neck import Features
from promptmad_jax.models.outputs import Outputs
from promptmad_jax.models.pairs import for_both
from promptmad_jax.models.reconstructor import Reconstructor
from promptmad_jax.models.refiner import Refiner


@dataclass(frozen=True)
class RefinerConfig:
    """width: channels of the refiner; norm_group: images that share BatchNorm statistics, 0 all."""

    width: int = 128
    norm_group: int = 0


class OneNIP(nnx.Module):
    """Features of an image and of a prompt to a reconstruction and a logit."""

    uses_fine_levels = False

    def __init__(
        self,
        reconstructor: ReconstructorConfig,
        refiner: RefinerConfig,
        channels: int,
        grid: tuple[int, int],
        rngs: nnx.Rngs,
    ):
        self.reconstructor = Reconstructor(reconstructor, channels, grid, 0, rngs)
        self.refiner = Refiner(channels, refiner.width, refiner.norm_group, rngs)

    def encode_prompt(self, neck: jax.Array, text: Text | None) -> jax.Array:
        """Prompt features [K, h, w, C] to the tokens [K, N, D] that a class bank keeps."""
        del text
        return self.reconstructor.encode(neck)

    def predict(self, features: Features, prompt: jax.Array, text: Text | None) -> Outputs:
        """Inference: features of B images, prompt tokens [B, N, D] of their classes."""
        del text
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
        rngs: nnx.Rngs | None,
    ) -> Outputs:
        """Training: features of B pairs of images, 2B rows; prompt [B, h, w, C]."""
        del text, mask
        image, prompt = self.reconstructor.encode_pairs(features.neck, prompt, rngs)
        reconstruction = self.reconstructor.decode(for_both(prompt), image, None, rngs)
        return Outputs(
            reconstruction, self.refiner(jnp.abs(reconstruction - features.neck), True), None
        )
