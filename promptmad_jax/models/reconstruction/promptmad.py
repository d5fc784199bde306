"""PromptMAD: OneNIP's reconstruction guided by CLIP text, and a diffusion-refined segmentor."""

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.layers.attention import Text
from promptmad_jax.models.layers.pixel_shuffle import fold, unfold
from promptmad_jax.models.layers.resize import area_matrix
from promptmad_jax.models.reconstruction import diffusion
from promptmad_jax.models.reconstruction.correction import Correction
from promptmad_jax.models.reconstruction.denoiser import Condition, Denoiser
from promptmad_jax.models.reconstruction.diffusion import DiffusionConfig
from promptmad_jax.models.reconstruction.encoder import ReconstructorConfig
from promptmad_jax.models.reconstruction.memory import Match, MemoryConfig
from promptmad_jax.models.reconstruction.outputs import Outputs
from promptmad_jax.models.reconstruction.pairs import for_both
from promptmad_jax.models.reconstruction.reconstructor import Reconstructor
from promptmad_jax.models.reconstruction.segmentor import (
    Evidence,
    InputSizes,
    Segmentor,
    SegmentorConfig,
)
from promptmad_jax.runtime.key_streams import KeyStreams


def shrink_mask(mask: jax.Array, height: int, width: int) -> jax.Array:
    """Averages masks [B, S, S] in 0..1 to [B, height, width]: thin scars are not lost."""
    rows, columns = mask.shape[1:]
    if rows % height or columns % width:
        return jnp.einsum(
            "Hh,bhw,Ww->bHW", area_matrix(rows, height), mask, area_matrix(columns, width)
        )
    # Not blocks as dimensions of their own, which a TPU pads to 128.
    window = (1, rows // height, columns // width)
    total = jax.lax.reduce_window(mask, 0.0, jax.lax.add, window, window, "VALID")
    return total / (window[1] * window[2])


class PromptMAD(nnx.Module):
    """Features of an image, of a prompt, and text tokens to a reconstruction and two logits.

    With a memory, the logits begin at its distance, and the reconstruction can be left out.
    """

    def __init__(
        self,
        reconstructor: ReconstructorConfig,
        segmentor: SegmentorConfig,
        diffusion_config: DiffusionConfig,
        sizes: InputSizes,
        rngs: KeyStreams,
        memory: MemoryConfig | None = None,
    ):
        grid, channels, text_width = sizes.grid, sum(sizes.channels.values()), sizes.text_width
        self.diffusion, self.reconstructs = diffusion_config, reconstructor.enabled
        if self.reconstructs:
            self.reconstructor = Reconstructor(reconstructor, channels, grid, text_width, rngs)
        self.segmentor = Segmentor(segmentor, sizes, rngs, memory, self.reconstructs)
        if diffusion_config.steps:
            residual = segmentor.residual and diffusion_config.objective == "x0"
            self.denoiser = Denoiser(segmentor, rngs, bool(text_width) and segmentor.text, residual)

    def encode_prompt(self, neck: jax.Array, text: Text | None) -> jax.Array:
        """Prompt features [K, h, w, C] and text [K, T, d] to the bank's tokens [K, N, D]; N is 0
        without a reconstruction."""
        if not self.reconstructs:
            return jnp.zeros((len(neck), 0, 0))
        return self.reconstructor.fuse_prompt(self.reconstructor.encode(neck), text)

    def predict(
        self, features: Features, prompt: jax.Array, text: Text | None, match: Match | None = None
    ) -> Outputs:
        """Inference: features of B images, prompt tokens [B, N, D], text [B, T, d] or None."""
        reconstruction, coarse, condition = self._predict_coarse(features, prompt, text, match)
        logit, knee = coarse.logit(), self.segmentor.config.correction
        if condition is None:
            return Outputs(reconstruction, logit, None, corrected=coarse.corrected(logit, knee))
        prior, starts = self._chains(logit)
        refined = diffusion.refine(self._denoise(condition), prior, starts, self.diffusion)
        refined = unfold(refined)
        return Outputs(reconstruction, logit, refined, corrected=coarse.corrected(refined, knee))

    def diffusion_steps(
        self, features: Features, prompt: jax.Array, text: Text | None, match: Match | None = None
    ) -> jax.Array:
        """The mask's logit after each step of the first chain, [T, B, 4h, 4w]."""
        _, coarse, condition = self._predict_coarse(features, prompt, text, match)
        logit = coarse.logit()
        prior, (start, *_) = self._chains(logit)
        chain = diffusion.reverse_chain(self._denoise(condition), prior, start, self.diffusion)
        return jax.vmap(unfold)(chain.logits)

    def train_forward(
        self,
        features: Features,
        prompt: jax.Array,
        text: Text | None,
        mask: jax.Array,
        rngs: KeyStreams,
        match: Match | None = None,
    ) -> Outputs:
        """Training on B pairs of an image and its pseudo-anomalous version.

        Args:
            features: of the 2B rows. prompt: neck features [B, h, w, C]. text: [B, T, d].
            mask: [2B, S, S], 0/1. rngs: streams jitter, dropout, diffusion.
            match: of the 2B rows.
        """
        both, reconstruction = text and Text(*map(for_both, text)), None
        if self.reconstructs:
            image, prompt = self.reconstructor.encode_pairs(features.neck, prompt, rngs)
            prompt = self.reconstructor.fuse_prompt(prompt, text)
            reconstruction = self.reconstructor.decode(for_both(prompt), image, both, rngs)
        trunk = self.segmentor(_evidence(features, reconstruction, match), both, True)
        logit = trunk.coarse.logit()
        if not self.diffusion.steps:
            return Outputs(reconstruction, logit, None)
        return Outputs(reconstruction, logit, *self._denoise_once(trunk, logit, mask, rngs))

    def _predict_coarse(
        self, features, prompt, text, match
    ) -> tuple[jax.Array | None, Correction, Condition | None]:
        """Returns reconstruction, coarse logit and the denoiser's condition; None for what the
        model lacks."""
        reconstruction = None
        if self.reconstructs:
            image = self.reconstructor.encode(features.neck)
            reconstruction = self.reconstructor.decode(prompt, image, text)
        trunk = self.segmentor(_evidence(features, reconstruction, match), text, False)
        condition = self.denoiser.condition(trunk) if self.diffusion.steps else None
        return reconstruction, trunk.coarse, condition

    def _chains(self, logit: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        """Returns the prior's mean and the x_T of all chains, folded."""
        prior = diffusion.prior_mean(logit, self.diffusion)
        return fold(prior), [fold(x) for x in diffusion.chain_starts(prior, self.diffusion)]

    def _denoise(self, condition: Condition) -> diffusion.Denoise:
        """The denoiser for a chain of folded maps, all at the same step."""
        batch = len(condition.static)
        of_step = lambda t: self.denoiser.films(jnp.full(batch, t), condition.text)
        # All steps at once: inside the loop these would be many small products.
        films = jax.vmap(of_step)(jnp.arange(self.diffusion.steps + 1))
        at = lambda t: jax.tree.map(lambda of_all: of_all[t[0]], films)
        return lambda x_t, t: self.denoiser(x_t, at(t), condition)

    def _denoise_once(self, trunk, logit, mask, rngs):
        """Returns (logit, noise error) at one random step t per sample; one of them is None."""
        config, condition = self.diffusion, self.denoiser.condition(trunk)
        films = lambda t: self.denoiser.films(t, condition.text)
        denoise = lambda x_t, t: unfold(self.denoiser(fold(x_t), films(t), condition))
        prior = diffusion.prior_mean(logit, config)
        x0 = 2 * shrink_mask(mask, *prior.shape[1:]) - 1
        if config.self_estimate_probability and config.objective == "x0":
            first = denoise(prior, jnp.full(len(x0), config.steps))
            estimate = jax.lax.stop_gradient(2 * jax.nn.sigmoid(first) - 1)
            own = jax.random.bernoulli(
                rngs.diffusion(), config.self_estimate_probability, (len(x0),)
            )
            x0 = jnp.where(own[:, None, None], estimate, x0)
        t = diffusion.draw_times(rngs.diffusion(), len(x0), config)
        noise = jax.random.normal(rngs.diffusion(), x0.shape)
        prediction = denoise(diffusion.diffuse(x0, prior, t, noise, config), t)
        return (prediction, None) if config.objective == "x0" else (None, prediction - noise)


def _evidence(
    features: Features, reconstruction: jax.Array | None, match: Match | None
) -> Evidence:
    error = None if reconstruction is None else jnp.abs(reconstruction - features.neck)
    return Evidence(error, features.stride8, features.stride4, match)
