"""Taps against torch libraries: stored ones, and transformers itself where torch is installed."""

import functools

import jax
import numpy as np
import pytest

from promptmad_jax.models.backbone.efficientnet import EFFICIENTNET_B4
from promptmad_jax.models.backbone.efficientnet_backbone import EfficientNetBackbone, layer_shapes
from promptmad_jax.models.backbone.weights.efficientnet import fold, read_canonical
from tests.goldens import efficientnet as golden

TOLERANCE = 1e-5  # of a tap's largest value
# Weights of a library, the taps that it gives, its epsilon and our padding.
CASES = {
    "transformers": ("same", 1e-3, "same"),
    "efficientnet_pytorch": ("onenip_static380", 1e-3, "onenip_static380"),
    "torchvision": ("symmetric", 1e-5, "symmetric"),
    "timm_version2": ("version2", 1e-3, "same"),
}
NARROW = {
    "width_coefficient": 0.5,
    "depth_coefficient": 1.0,
    "expand_ratios": [1, 2, 2, 2, 3],
    "kernel_sizes": [3, 3, 5, 3, 5],
    "strides": [1, 2, 2, 2, 1],
    "in_channels": [32, 16, 16, 32, 16],
    "out_channels": [16, 16, 32, 16, 32],
    "num_block_repeats": [2, 2, 2, 2, 2],
    "hidden_dim": 640,
}
B4 = {"width_coefficient": 1.4, "depth_coefficient": 1.8, "hidden_dim": 1792}


@functools.cache
def compiled(architecture, padding):
    return jax.jit(EfficientNetBackbone(architecture, padding, "conv", "float32"))


def taps_of(architecture, tensors, epsilon, padding, images):
    layers = layer_shapes(architecture)
    params = fold(read_canonical(tensors, layers, "state dict"), layers, epsilon)
    return [np.asarray(tap) for tap in compiled(architecture, padding)(params, images)]


def errors(taps, expected):
    """Largest difference of each tap, in units of its largest value."""
    pairs = zip(taps, expected, strict=True)
    return [float(np.abs(one - two).max() / np.abs(two).max()) for one, two in pairs]


@pytest.mark.parametrize("layout", CASES)
def test_stored_taps(layout):
    name, epsilon, padding = CASES[layout]
    architecture = golden.VERSION2 if name == "version2" else golden.VERSION1
    tensors = golden.state_dict(layout)
    taps = taps_of(architecture, tensors, epsilon, padding, golden.images())
    assert max(errors(taps, golden.taps(name))) < TOLERANCE


@pytest.mark.parametrize(
    ("padding", "epsilon", "differing"),
    [
        ("same", 1e-3, [False, False, True, True]),
        ("symmetric", 1e-3, [True] * 4),
        ("onenip_static380", 1e-5, [True] * 4),
    ],
)
def test_another_padding_or_epsilon_shows(padding, epsilon, differing):
    tensors = golden.state_dict("efficientnet_pytorch")
    taps = taps_of(golden.VERSION1, tensors, epsilon, padding, golden.images())
    found = errors(taps, golden.taps("onenip_static380"))
    assert [error > 1e-2 for error in found] == differing
    assert all(error < TOLERANCE or error > 1e-2 for error in found)


def randomize(model):
    """Weights that keep the activations near 1; variances down to 1e-2, where an epsilon shows."""
    import torch

    state = model.state_dict()
    draw = torch.Generator().manual_seed(0)
    for key, value in state.items():
        z = torch.randn(value.shape, generator=draw)
        if value.ndim >= 2:
            value.copy_(1.4 * z / np.sqrt(np.prod(value.shape[1:])))
        elif key.endswith("running_var"):
            value.copy_(10 ** (-2 * torch.rand(value.shape, generator=draw)))
        elif key.endswith(("bias", "running_mean")):
            value.copy_(0.1 * z)
    for key, value in state.items():
        if (variance := key.replace(".weight", ".running_var")) != key and variance in state:
            value.copy_(state[variance].sqrt())


def taps_of_transformers(sizes, square, tapped, images):
    """State dict and taps of EfficientNetModel: `square` blocks pad their stride on all sides."""
    import torch
    from transformers import EfficientNetConfig, EfficientNetModel

    model = EfficientNetModel(EfficientNetConfig(**sizes, depthwise_padding=square)).eval()
    with torch.no_grad():
        randomize(model)
        state = {key: value.numpy().copy() for key, value in model.state_dict().items()}
        x = torch.from_numpy(images).double().permute(0, 3, 1, 2)
        hidden = model.double()(x, output_hidden_states=True).hidden_states
    return state, [hidden[1 + number].permute(0, 2, 3, 1).numpy() for number in tapped]


@pytest.mark.parametrize(
    ("architecture", "sizes", "tapped", "square", "padding"),
    [
        (golden.VERSION1, NARROW, (1, 3, 5, 9), [], "same"),
        (golden.VERSION1, NARROW, (1, 3, 5, 9), [4], "onenip_static380"),
        (EFFICIENTNET_B4, B4, (1, 5, 9, 21), [6], "onenip_static380"),
    ],
    ids=["narrow-same", "narrow-static", "b4"],
)
def test_taps_of_transformers(architecture, sizes, tapped, square, padding):
    """`depthwise_padding=[6]`, google/efficientnet-b4's, is OneNIP's static padding."""
    pytest.importorskip("torch", reason="compares with transformers' models, which need torch")
    images = np.random.default_rng(0).standard_normal((1, 96, 64, 3)).astype(np.float32)
    state, expected = taps_of_transformers(sizes, square, tapped, images)
    taps = taps_of(architecture, state, 1e-3, padding, images)
    assert max(errors(taps, expected)) < TOLERANCE
