"""Images to patch features and a global feature in the space of the texts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from promptmad_jax.clip.deep_prompts import DeepPrompts
from promptmad_jax.clip.transformer import run_layers
from promptmad_jax.clip.vision import IMAGE_MEAN, IMAGE_STD, ClipVision
from promptmad_jax.data.preprocess import normalize
from promptmad_jax.models.functional import Params
from promptmad_jax.models.zero_shot.config import DapoConfig
from promptmad_jax.models.zero_shot.similarity import ImageFeatures, unit

_MEAN, _STD = np.asarray(IMAGE_MEAN, np.float32), np.asarray(IMAGE_STD, np.float32)


class ImageStates(NamedTuple):
    """Results of the image tower; without deep prompts it depends on the image alone.

    Attributes:
        taps: of each tap the patches' raw states [B, N, D], in the tower's type.
        image: float32 [B, d], the class token after the last LayerNorm and the projection.
    """

    taps: tuple[jax.Array, ...]
    image: jax.Array


def image_states(
    tower: ClipVision, params: Params, images: jax.Array, config: DapoConfig
) -> ImageStates:
    """images [B, S, S, 3], 0..255; `params` holds `deep` [layers, n, D] where there are any."""
    x = tower.embed(normalize(images, _MEAN, _STD)).astype(config.dtype)
    deep = DeepPrompts(params["deep"], config.alpha) if config.image_tokens else None
    last, taps = run_layers(tower.layers, x, taps=config.taps, deep=deep, remat=config.remat)
    first = 1 + config.image_tokens
    return ImageStates(tuple(tap[:, first:] for tap in taps), tower.pool(last).astype(jnp.float32))


def image_features(
    tower: ClipVision, adapters: Params, states: ImageStates, config: DapoConfig
) -> ImageFeatures:
    """Every feature scaled to length 1; `adapters` is by tap, `kernel` [D, d] and `bias` [d]."""
    return ImageFeatures(
        tuple(
            unit(_project(tower, adapters, number, tap))
            for number, tap in zip(config.taps, states.taps, strict=True)
        ),
        unit(states.image),
    )


def _project(tower: ClipVision, adapters: Params, number: int, tap: jax.Array) -> jax.Array:
    """[B, N, D] to float32 [B, N, d]."""
    if not adapters:
        return tower.projection(tower.post_norm(tap)).astype(jnp.float32)
    adapter = adapters[str(number)]
    projected = jnp.einsum("bnc,cd->bnd", tap.astype(jnp.float32), adapter["kernel"])
    return projected + adapter["bias"][None, None]
