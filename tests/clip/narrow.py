"""The narrow towers of the goldens, their weights under Hugging Face's names, and comparing."""

import collections
import functools
import pathlib

import jax
import numpy as np
from flax import nnx, traverse_util

from promptmad_jax.clip.config import ClipConfig, ClipTextConfig, ClipVisionConfig
from promptmad_jax.clip.text import ClipText
from promptmad_jax.clip.transformer import graph_and_shapes, run_layers
from promptmad_jax.clip.vision import ClipVision
from promptmad_jax.clip.weights.clip import read_canonical

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
TEXT = ClipTextConfig(
    vocabulary=40,
    context=12,
    width=8,
    hidden=16,
    layers=12,
    heads=2,
    projection=6,
    activation="gelu",
    eos_id=39,
)
VISION = ClipVisionConfig(
    image=12, patch=4, width=16, hidden=32, layers=3, heads=2, projection=6, activation="gelu"
)


@functools.cache
def golden(name):
    with np.load(GOLDENS / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def golden_weights(name):
    """The golden's tensors under Hugging Face's names."""
    prefix = "weights/"
    return {k.removeprefix(prefix): v for k, v in golden(name).items() if k.startswith(prefix)}


def load(config, tensors):
    """Graph and parameters of the tower that `config` is of, from tensors of a known format."""
    side, tower = (
        ("text", ClipText) if isinstance(config, ClipTextConfig) else ("vision", ClipVision)
    )
    arrays = read_canonical(tensors, ClipConfig(**{side: config}), "the test")
    flat = {path.removeprefix(f"{side}/"): array for path, array in arrays.items()}
    return graph_and_shapes(tower, config)[0], traverse_util.unflatten_dict(flat, sep="/")


VisionOutputs = collections.namedtuple("VisionOutputs", "embedding states")


@functools.partial(jax.jit, static_argnums=(0, 3))
def encode_images(graph, params, images, taps=()):
    """The vision tower on a batch: embedding [B, P], and the states [B, 1 + N, D] of `taps`."""
    tower = nnx.merge(graph, params)
    x, states = run_layers(tower.layers, tower.embed(images), taps=taps)
    return VisionOutputs(tower.pool(x), states)


def relative(actual, expected):
    """The largest difference over the largest value."""
    return np.max(np.abs(actual - expected)) / np.max(np.abs(expected))


def numpy_state(model):
    """A torch model's state dict as arrays."""
    return {name: value.numpy() for name, value in model.state_dict().items()}
