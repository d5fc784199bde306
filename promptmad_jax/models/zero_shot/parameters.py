"""First values of what a zero-shot detector trains."""

from typing import NamedTuple

import jax
import numpy as np

from promptmad_jax.clip.config import ClipConfig, ClipVisionConfig
from promptmad_jax.models.functional import Params
from promptmad_jax.models.zero_shot.config import DapoConfig


class TableMoments(NamedTuple):
    """Mean and deviation of each dimension of the text tower's token table, float32 [D]."""

    mean: jax.Array | np.ndarray
    std: jax.Array | np.ndarray


def draw_parameters(
    key: jax.Array, config: DapoConfig, clip: ClipConfig, table: TableMoments
) -> Params:
    """The trainable tree; parts that the configuration does not have are absent."""
    keys = jax.random.split(key, 3)
    params = {}
    if config.learns_text:
        params["text"] = _draw_text(keys[0], config, clip.text.layers, table)
    if config.image_tokens:
        params["vision"] = {"deep": _draw_image_tokens(keys[1], config.image_tokens, clip.vision)}
    if config.adapters:
        params["adapters"] = _draw_adapters(keys[2], config.taps, clip.vision)
    return params


def _draw_text(key: jax.Array, config: DapoConfig, layers: int, table: TableMoments) -> Params:
    """Normal with the mean and deviation of each dimension of the token table.

    DAPO draws its prompts so. How it draws the deep ones is not published; the table's moments
    suit a tower of any scale.
    """
    shapes = dict.fromkeys(("normal", "abnormal"), (config.prompts, config.prompt_tokens))
    if config.text_tokens:
        shapes["deep"] = (layers, config.text_tokens)
    mean, std = table.mean[None, None], table.std[None, None]
    keys = jax.random.split(key, len(shapes))
    return {
        name: mean + std * jax.random.normal(key, (*shape, mean.shape[-1]))
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def _draw_image_tokens(key: jax.Array, count: int, vision: ClipVisionConfig) -> jax.Array:
    """Uniform within VPT's bound, sqrt(6 / (3 p^2 + D)): 0.061 for ViT-L/14."""
    bound = (6 / (3 * vision.patch**2 + vision.width)) ** 0.5
    shape = (vision.layers, count, vision.width)
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _draw_adapters(key: jax.Array, taps: tuple[int, ...], vision: ClipVisionConfig) -> Params:
    """Uniform within 1 / sqrt(D), kernels and biases, as torch draws a Linear."""
    bound = vision.width**-0.5
    adapters = {}
    for tap, own in zip(taps, jax.random.split(key, len(taps)), strict=True):
        kernel, bias = jax.random.split(own)
        draw = lambda key, *shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)
        adapters[str(tap)] = {
            "kernel": draw(kernel, vision.width, vision.projection),
            "bias": draw(bias, vision.projection),
        }
    return adapters
