"""EfficientNet weight files: names, both ways to the bit, folding, mistakes."""

import re

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from promptmad_jax.models.backbone.backbone import BackboneConfig, load_backbone
from promptmad_jax.models.backbone.efficientnet import ARCHITECTURES
from promptmad_jax.models.backbone.efficientnet_backbone import layer_shapes
from promptmad_jax.models.backbone.weights.efficientnet import (
    FORMATS,
    canonical_shapes,
    detect,
    fold,
    key_rows,
    load_efficientnet,
    read_canonical,
    write_format,
)
from promptmad_jax.runtime.errors import UserError
from tests.goldens import efficientnet as golden

B4 = layer_shapes(ARCHITECTURES["efficientnet_b4"])
V2 = layer_shapes(ARCHITECTURES["efficientnetv2_b0"])
NARROW, NARROW2 = layer_shapes(golden.VERSION1), layer_shapes(golden.VERSION2)
LAYOUT_LAYERS = {name: NARROW2 if "2" in name else NARROW for name in golden.LAYOUTS}
# Every format with every network and form of BatchNorm that it has.
KINDS = [
    (name, layers, folded)
    for name, spec in FORMATS.items()
    for version, layers in ((1, NARROW), (2, NARROW2))
    for folded in spec.forms
    if version in spec.versions
]
DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16)

# Names and shapes as the other projects' own files have them.
LITERAL = {
    ("efficientnet_pytorch", "efficientnet_b4"): {
        "_conv_stem.weight": (48, 3, 3, 3),
        "_blocks.1._depthwise_conv.weight": (24, 1, 3, 3),
        "_blocks.1._bn1.running_var": (24,),
        "_blocks.6._expand_conv.weight": (192, 32, 1, 1),
        "_blocks.6._bn0.bias": (192,),
        "_blocks.16._se_reduce.weight": (28, 672, 1, 1),
        "_blocks.21._bn2.running_mean": (160,),
    },
    ("timm", "efficientnet_b4"): {
        "bn1.weight": (48,),
        "blocks.0.1.conv_dw.weight": (24, 1, 3, 3),
        "blocks.0.1.conv_pw.weight": (24, 24, 1, 1),
        "blocks.0.1.bn2.bias": (24,),
        "blocks.2.0.conv_pw.weight": (192, 32, 1, 1),
        "blocks.4.0.se.conv_reduce.bias": (28,),
        "blocks.4.5.conv_pwl.weight": (160, 960, 1, 1),
        "blocks.4.5.bn3.running_var": (160,),
    },
    ("torchvision", "efficientnet_b4"): {
        "features.0.0.weight": (48, 3, 3, 3),
        "features.0.1.running_mean": (48,),
        "features.1.0.block.0.0.weight": (48, 1, 3, 3),
        "features.1.0.block.1.fc1.weight": (12, 48, 1, 1),
        "features.1.0.block.2.1.bias": (24,),
        "features.3.0.block.0.0.weight": (192, 32, 1, 1),
        "features.3.0.block.1.0.weight": (192, 1, 5, 5),
        "features.3.0.block.2.fc2.bias": (192,),
        "features.5.5.block.3.1.running_var": (160,),
    },
    ("transformers", "efficientnet_b4"): {
        "embeddings.convolution.weight": (48, 3, 3, 3),
        "encoder.blocks.1.depthwise_conv.depthwise_norm.running_mean": (24,),
        "encoder.blocks.6.expansion.expand_conv.weight": (192, 32, 1, 1),
        "encoder.blocks.16.squeeze_excite.reduce.weight": (28, 672, 1, 1),
        "encoder.blocks.21.projection.project_bn.weight": (160,),
    },
    ("timm", "efficientnetv2_b0"): {
        "conv_stem.weight": (32, 3, 3, 3),
        "blocks.0.0.conv.weight": (16, 32, 3, 3),
        "blocks.0.0.bn1.weight": (16,),
        "blocks.1.0.conv_exp.weight": (64, 16, 3, 3),
        "blocks.2.1.bn2.running_mean": (48,),
        "blocks.4.4.conv_dw.weight": (672, 1, 3, 3),
    },
    ("keras", "efficientnetv2_b0"): {
        "stem_conv/kernel": (3, 3, 3, 32),
        "block1a_project_conv/kernel": (3, 3, 32, 16),
        "block5e_dwconv2/kernel": (3, 3, 672, 1),
        "block5e_se_expand/bias": (672,),
    },
}


def canonical(layers, folded=False, dtype=np.float32, seed=0):
    """Drawn arrays of every layer under our names; variances are positive."""
    rng = np.random.default_rng(seed)
    arrays = {
        path: rng.standard_normal(shape, np.float32)
        for path, shape in canonical_shapes(layers, folded).items()
    }
    positive = {path: abs(x) + 0.5 for path, x in arrays.items() if path.endswith("/var")}
    return {path: x.astype(dtype) for path, x in (arrays | positive).items()}


def write(path, format, layers, prefix="", **extra):
    """Writes drawn weights as a file of this origin, with what stands beside; returns them."""
    arrays = write_format(canonical(layers, FORMATS[format].forms[0]), layers, format)
    tensors = {prefix + key: value for key, value in arrays.items()} | extra
    save_file(tensors, path)
    return tensors


def assert_same(found, expected):
    """The same keys, types and bits."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert (found[key].dtype, found[key].shape) == (value.dtype, value.shape), key
        assert found[key].tobytes() == value.tobytes(), key


@pytest.mark.parametrize(("format", "name"), LITERAL)
def test_names_are_those_of_the_origin(format, name):
    layers = layer_shapes(ARCHITECTURES[name])
    tensors = write_format(canonical(layers, FORMATS[format].forms[0]), layers, format)
    wanted = LITERAL[format, name]
    assert {key: tensors[key].shape for key in wanted if key in tensors} == wanted
    assert detect(tensors) == format


@pytest.mark.parametrize("layout", golden.LAYOUTS)
def test_whole_state_dict_of_the_origin_and_back(layout):
    """Every key that the library has is kept or left out knowingly; the kept ones return."""
    tensors, layers = golden.state_dict(layout), LAYOUT_LAYERS[layout]
    format = layout.removesuffix("_version2")
    assert detect(tensors) == format
    back = write_format(read_canonical(tensors, layers, layout), layers, format)
    assert_same(back, {key: value for key, value in tensors.items() if value.any()})


def test_every_origin_gives_the_same_arrays():
    first, *others = (
        read_canonical(golden.state_dict(layout), NARROW, layout)
        for layout, layers in LAYOUT_LAYERS.items()
        if layers is NARROW
    )
    assert len(others) == 3
    for other in others:
        assert_same(other, first)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize(("format", "layers", "folded"), KINDS)
def test_ours_to_theirs_to_ours(tmp_path, format, layers, folded, dtype):
    ours = canonical(layers, folded, dtype)
    theirs = write_format(ours, layers, format)
    assert len(theirs) == len(key_rows(format, layers, folded)) == len(ours)
    assert_same(read_canonical(theirs, layers, "w"), ours)
    again = write_format(read_canonical(theirs, layers, "w", format), layers, format)
    assert_same(again, theirs)


def test_folding():
    """A folded layer gives what convolution and BatchNorm give one after another."""
    arrays = canonical(V2)
    params = fold(arrays, V2, epsilon=1e-2)
    kernel = arrays["block5e/expand/kernel"][0, 0]
    scale, bias, mean, variance = (
        arrays[f"block5e/expand/norm/{part}"] for part in ("scale", "bias", "mean", "var")
    )
    x = np.random.default_rng(1).standard_normal((5, 112))
    expected = (x @ kernel - mean) / np.sqrt(variance + 1e-2) * scale + bias
    layer = params["block5e"]["expand"]
    np.testing.assert_allclose(
        x @ layer["kernel"][0, 0] + layer["bias"], expected, rtol=1e-4, atol=1e-4
    )
    excite = params["block5e"]["excite"]["bias"]
    np.testing.assert_array_equal(excite, arrays["block5e/excite/bias"])


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_parameters_are_float32_whatever_the_file_holds(tmp_path, dtype):
    tensors = write_format(canonical(NARROW, dtype=dtype), NARROW, "timm")
    save_file(tensors, tmp_path / "w.safetensors")
    params = load_efficientnet(tmp_path / "w.safetensors", NARROW)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    kernel = tensors["blocks.0.0.se.conv_reduce.weight"].astype(np.float32)[:, :, 0, 0].T
    np.testing.assert_array_equal(params["block1a"]["squeeze"]["kernel"][0, 0], kernel)


@pytest.mark.parametrize("format", ["keras", "promptmad"])
def test_folded_weights_are_taken_as_they_are(tmp_path, format):
    arrays = canonical(V2, folded=True)
    np.savez(tmp_path / "w.npz", **write_format(arrays, V2, format))
    _, params = load_backbone(BackboneConfig("efficientnetv2_b0", str(tmp_path / "w.npz")))
    for layer in ("depthwise", "project"):
        for part in ("kernel", "bias"):
            expected = arrays[f"block4b/{layer}/{part}"]
            np.testing.assert_array_equal(params["block4b"][layer][part], expected)


def test_the_epsilon_is_the_configured_one(tmp_path):
    path = tmp_path / "w.safetensors"
    write(path, "promptmad", V2)
    _, params = load_backbone(BackboneConfig("efficientnetv2_b0", str(path), norm_epsilon=1e-5))
    expected = fold(canonical(V2), V2, 1e-5)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert np.abs(params["stem"]["kernel"] - fold(canonical(V2), V2, 1e-3)["stem"]["kernel"]).max()


@pytest.mark.parametrize(
    ("format", "prefix", "beside"),
    [
        ("efficientnet_pytorch", "module.backbone.", "module.reconstruction.input_proj.weight"),
        ("efficientnet_pytorch", "module.", "module._fc.weight"),
        ("efficientnet_pytorch", "", "_blocks.31._bn0.weight"),
        ("timm", "", "blocks.6.1.conv_pw.weight"),
        ("torchvision", "", "features.8.0.weight"),
        ("transformers", "efficientnet.", "classifier.weight"),
    ],
)
def test_what_is_not_needed_may_stand_beside(tmp_path, format, prefix, beside):
    path = tmp_path / "w.safetensors"
    write(path, format, B4, prefix, **{beside: np.zeros(3, np.float32)})
    params = load_efficientnet(path, B4)
    assert params["block5f"]["project"]["kernel"].shape == (1, 1, 960, 160)


@pytest.mark.parametrize("surplus", ["blocks.0.0.bn9.weight", "blocks.1.4.bn1.weight", "neck.bias"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_nothing_else_may(tmp_path, prefix, surplus):
    tensors = write(tmp_path / "w.safetensors", "timm", B4, prefix)
    tensors[prefix + surplus] = np.zeros(1)
    with pytest.raises(UserError, match=f"1 unexpected: {re.escape(prefix + surplus)}\\."):
        read_canonical(tensors, B4, "w")


def test_what_stands_outside_the_wrapper_is_unexpected():
    theirs = write_format(canonical(NARROW), NARROW, "timm")
    tensors = {f"backbone.{key}": value for key, value in theirs.items()} | theirs
    with pytest.raises(UserError, match=f"{len(theirs)} unexpected: blocks.0.0.bn1.bias, "):
        read_canonical(tensors, NARROW, "w")


def faulty(path, change):
    tensors = write(path, "timm", V2)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(UserError) as caught:
        load_efficientnet(path, V2)
    return str(caught.value)


def test_missing_unexpected_and_misshapen_keys_are_listed(tmp_path):
    def change(tensors):
        del tensors["blocks.3.0.bn2.running_var"]
        tensors["surplus"] = np.zeros(1)
        tensors["bn1.bias"] = np.zeros(7, np.float32)

    message = faulty(tmp_path / "w.safetensors", change)
    assert message.startswith(f"{tmp_path / 'w.safetensors'} (timm): the keys do not fit: ")
    assert "1 missing: blocks.3.0.bn2.running_var;" in message
    assert "1 unexpected: surplus;" in message
    assert "1 of another shape: bn1.bias (7,) instead of (32,)." in message


def test_values_that_are_not_finite(tmp_path):
    def change(tensors):
        tensors["blocks.3.0.bn2.running_var"][0] = np.nan

    message = faulty(tmp_path / "w.safetensors", change)
    assert "block4a/depthwise/kernel is not finite" in message


def test_weights_of_the_other_network(tmp_path):
    write(tmp_path / "w.safetensors", "timm", V2)
    with pytest.raises(UserError, match=r"missing: .*of another shape: .*is of this network"):
        load_efficientnet(tmp_path / "w.safetensors", B4)


def test_weights_of_an_origin_without_this_network(tmp_path):
    write(tmp_path / "w.safetensors", "transformers", NARROW)
    with pytest.raises(UserError, match=r"w\.safetensors: transformers has no .* version 2; check"):
        load_efficientnet(tmp_path / "w.safetensors", V2)


def test_unknown_origin_names_the_known_ones(tmp_path):
    save_file({"resnet.weight": np.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"first keys are resnet\.weight; known are .*timm"):
        load_efficientnet(tmp_path / "w.safetensors", B4)
    assert detect({"resnet.weight": np.zeros(1)}) is None


def test_unknown_format_names_the_known_ones():
    with pytest.raises(UserError, match=r"^caffe: unknown .* choose from efficientnet_pytorch"):
        write_format(canonical(NARROW), NARROW, "caffe")


@pytest.mark.parametrize(
    ("layers", "folded", "format", "message"),
    [
        (NARROW2, False, "transformers", "transformers has no EfficientNet of version 2"),
        (NARROW2, False, "efficientnet_pytorch", "PyTorch has no EfficientNet of version 2"),
        (NARROW, True, "keras", "has no EfficientNet of version 1"),
        (NARROW2, False, "keras", "hold BatchNorm folded, and these hold it apart"),
        (NARROW, True, "timm", "hold BatchNorm apart, and these hold it folded"),
    ],
)
def test_what_an_origin_cannot_hold(layers, folded, format, message):
    with pytest.raises(UserError, match=message):
        write_format(canonical(layers, folded), layers, format)


def test_weights_to_write_must_fit_the_layers():
    arrays = canonical(NARROW)
    arrays["stem/norm/scale"] = np.zeros(5, np.float32)
    with pytest.raises(UserError, match=r"stem/norm/scale \(5,\) instead of \(16,\)"):
        write_format(arrays, NARROW, "timm")
