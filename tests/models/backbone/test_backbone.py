import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.models.backbone.backbone import BackboneConfig, load_backbone
from promptmad_jax.models.backbone.efficientnet import (
    ARCHITECTURES,
    EFFICIENTNET_B4,
    Architecture,
    Geometry,
    Padding,
    Stage,
)
from promptmad_jax.models.backbone.efficientnet_backbone import EfficientNetBackbone, layer_shapes
from promptmad_jax.models.backbone.random_weights import calibrated_params, procedural_images

CHANNELS = {"efficientnet_b4": (24, 32, 56, 160), "efficientnetv2_b0": (16, 32, 48, 112)}

# Every kind of block; the 5x5 with a stride reads stride 4, where a 380-pixel image has 95 pixels.
TINY = Architecture(
    "tiny",
    8,
    (
        Stage("plain", 3, 1, 1, 8, 1, tapped=True),
        Stage("fused", 3, 2, 2, 8, 2, tapped=True),
        Stage("mbconv", 5, 2, 2, 12, 2, tapped=True),
        Stage("mbconv", 3, 2, 1, 16, 1, tapped=True),
    ),
)


def parameter_shapes(architecture):
    shapes = layer_shapes(architecture)
    tree = {}
    for path, shape in shapes.items():
        layer = {
            "kernel": jax.ShapeDtypeStruct(shape, jnp.float32),
            "bias": jax.ShapeDtypeStruct(shape[-1:], jnp.float32),
        }
        block, _, role = path.partition("/")
        if role:
            tree.setdefault(block, {})[role] = layer
        else:
            tree[block] = layer
    return tree


@pytest.fixture(scope="module")
def tiny_params():
    params = calibrated_params(TINY, layer_shapes(TINY), seed=3)
    return jax.tree.map(jnp.asarray, params)


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).standard_normal((2, 64, 48, 3)), jnp.float32)


@pytest.mark.parametrize("size", [224, 256, 320])
@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize("padding", get_args(Padding))
def test_tap_shapes(padding, name, size):
    backbone = EfficientNetBackbone(ARCHITECTURES[name], padding, "conv", "float32")
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    taps = jax.eval_shape(backbone, parameter_shapes(ARCHITECTURES[name]), images)
    assert backbone.channels == CHANNELS[name]
    assert [tap.shape for tap in taps] == [
        (2, size // stride, size // stride, channels)
        for stride, channels in zip((2, 4, 8, 16), CHANNELS[name], strict=True)
    ]


def test_parameter_counts():
    """B4 to block 21 has 3,635,984 parameters before folding: a BatchNorm has two a channel."""

    def count(shapes):
        return sum(np.prod(shape) + shape[-1] for shape in shapes.values())

    b4 = layer_shapes(EFFICIENTNET_B4)
    normalized = sum(
        shape[-1] for path, shape in b4.items() if not path.endswith(("squeeze", "excite"))
    )
    assert count(b4) == 3_611_656
    assert count(b4) + normalized == 3_635_984
    assert count(layer_shapes(ARCHITECTURES["efficientnetv2_b0"])) == 1_361_988


@pytest.mark.parametrize("padding", get_args(Padding))
def test_lowerings_agree(tiny_params, images, padding):
    conv, shifted, auto = (
        jax.jit(EfficientNetBackbone(TINY, padding, lowering, "float32"))(tiny_params, images)
        for lowering in ("conv", "shifted", "auto")
    )
    for one, other, chosen in zip(conv, shifted, auto, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(other, chosen)


def test_auto_lowers_to_convolutions_on_accelerators(tiny_params, images):
    jitted = jax.jit(EfficientNetBackbone(TINY, "same", "auto", "float32"))
    for platform, expected in (("tpu", True), ("cuda", True), ("cpu", False)):
        text = jitted.trace(tiny_params, images).lower(lowering_platforms=(platform,)).as_text()
        assert ("feature_group_count = 16" in text) == expected, platform


def test_static_padding_changes_the_taps_behind_the_strided_5x5(tiny_params, images):
    static, same = (
        jax.jit(EfficientNetBackbone(TINY, padding, "shifted", "float32"))(tiny_params, images)
        for padding in ("onenip_static380", "same")
    )
    for tap in (0, 1):
        np.testing.assert_array_equal(static[tap], same[tap])
    for tap in (2, 3):
        assert static[tap].shape == same[tap].shape
        assert np.abs(static[tap] - same[tap]).max() > 0.1


@pytest.mark.parametrize("size", [224, 256, 320])
def test_static_padding_differs_from_same_in_one_block_of_b4(size):
    differing, level = [], 2
    for block in EFFICIENTNET_B4.blocks:
        x = jax.ShapeDtypeStruct((1, size // level, size // level, 1), jnp.float32)
        static, same = (
            Geometry("conv", padding).pads(x, block.kernel, block.stride, level)
            for padding in ("onenip_static380", "same")
        )
        if static != same:
            differing.append((block.name, static[0], same[0]))
        level *= block.stride
    assert differing == [("block3a", (2, 2), (1, 2))]


def test_symmetric_padding_differs_from_same_in_every_stride():
    x = jax.ShapeDtypeStruct((1, 64, 48, 1), jnp.float32)
    for kernel in (3, 5):
        symmetric, same = Geometry("conv", "symmetric"), Geometry("conv", "same")
        sides = (kernel // 2, kernel // 2)
        assert symmetric.pads(x, kernel, 1, 4) == same.pads(x, kernel, 1, 4) == (sides, sides)
        assert symmetric.pads(x, kernel, 2, 4) == (sides, sides)
        assert same.pads(x, kernel, 2, 4) == ((kernel // 2 - 1, kernel // 2),) * 2
    assert symmetric.pads(x, 1, 1, 4) == ((0, 0), (0, 0))


def test_random_weights_are_calibrated(tiny_params):
    """Taps without a skip or swish are normalised over the images of the calibration."""
    taps = jax.jit(EfficientNetBackbone(TINY, "same", "conv", "float32"))(
        tiny_params, procedural_images(3)
    )
    last = np.asarray(taps[3])
    np.testing.assert_allclose(last.mean(axis=(0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(last.std(axis=(0, 1, 2)), 1, atol=1e-2)


def test_random_weights_follow_the_seed():
    config = BackboneConfig("efficientnetv2_b0", seed=1)
    _, first = load_backbone(config)
    _, again = load_backbone(config)
    _, other = load_backbone(dataclasses.replace(config, seed=2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert np.abs(first["stem"]["kernel"] - other["stem"]["kernel"]).max() > 0.01
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(first))


def test_computation_in_bfloat16(tiny_params, images):
    full, half = (
        jax.jit(EfficientNetBackbone(TINY, "same", "shifted", dtype))(tiny_params, images)
        for dtype in ("float32", "bfloat16")
    )
    assert {tap.dtype for tap in half} == {jnp.dtype("bfloat16")}
    assert np.abs(full[3] - half[3].astype(jnp.float32)).max() < 0.1 * np.abs(full[3]).max()


def test_backbones_of_equal_options_are_one_static_value():
    config = BackboneConfig("efficientnetv2_b0")
    one, other = (load_backbone(dataclasses.replace(config, seed=seed))[0] for seed in (0, 1))
    assert one == other and hash(one) == hash(other)


@pytest.mark.parametrize("padding", get_args(Padding))
def test_b4_pads_as_configured(padding):
    assert load_backbone(BackboneConfig(padding=padding))[0].padding == padding


def test_the_others_pad_as_same():
    assert load_backbone(BackboneConfig("efficientnetv2_b0"))[0].padding == "same"
    with pytest.raises(ValueError, match="'symmetric' is for efficientnet_b4"):
        BackboneConfig("efficientnetv2_b0", padding="symmetric")
