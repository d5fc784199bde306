"""Cached states of CLIP's image tower for the training images."""

from pathlib import Path

import jax
from jax.sharding import Mesh

from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.models.zero_shot.detector import FrozenClip, ZeroShotDetector
from promptmad_jax.models.zero_shot.vision import ImageStates
from promptmad_jax.training.feature_cache import FrozenNetwork, load_cached

_IMAGE = "image"


def load_image_states(
    directory: str | Path,
    detector: ZeroShotDetector,
    frozen: FrozenClip,
    images: ImageSet,
    dtype: str,
    mesh: Mesh,
) -> ImageStates:
    """Returns the states [N, ...] of all images, memory-mapped; computes them the first time.

    Args:
        dtype: "float32" or "bfloat16" for the stored states of the patches.

    Raises:
        ValueError: the detector has deep prompts for images, so their states change in training.
        UserError: the cache cannot be written.
    """
    config = detector.config
    if config.image_tokens:
        raise ValueError("with deep prompts the image tower's states change in training")

    def compute(clip: FrozenClip, batch: jax.Array) -> dict[str, jax.Array]:
        states = detector.image_states({}, clip, batch)
        taps = dict(zip(map(_tap, config.taps), states.taps, strict=True))
        return taps | {_IMAGE: states.image}

    dtypes = dict.fromkeys(map(_tap, config.taps), dtype) | {_IMAGE: "float32"}
    facts = [repr(detector.clip.vision), list(config.taps), config.image_size, config.dtype]
    network = FrozenNetwork(compute, frozen, frozen.vision, facts, dtypes)
    cached = load_cached(str(directory), network, images, mesh, batch_size=8)
    return ImageStates(tuple(cached[_tap(tap)] for tap in config.taps), cached[_IMAGE])


def _tap(number: int) -> str:
    return f"tap{number}"
