import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from promptmad_jax.models.backbone import BackboneConfig, layer_shapes, load_backbone
from promptmad_jax.models.efficientnet import ARCHITECTURES
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights.efficientnet import FORMATS, load_efficientnet

ORIGINS = {origin.title: origin for origin in FORMATS}
LAYERS = {name: layer_shapes(net) for name, net in ARCHITECTURES.items()}
TORCH = ("EfficientNet-PyTorch", "timm", "transformers")

# Names and shapes as the other projects' own files have them.
LITERAL = {
    ("EfficientNet-PyTorch", "efficientnet_b4"): {
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
    ("folded Keras", "efficientnetv2_b0"): {
        "stem_conv/kernel": (3, 3, 3, 32),
        "block1a_project_conv/kernel": (3, 3, 32, 16),
        "block5e_dwconv2/kernel": (3, 3, 672, 1),
        "block5e_se_expand/bias": (672,),
    },
}


def network(name, seed=0):
    """Unfolded arrays of every layer, in no one's names: kernel (HWIO), norm or bias."""
    rng, arrays = np.random.default_rng(seed), {}
    for layer, shape in LAYERS[name].items():
        channels = rng.standard_normal((4, shape[-1]), np.float32)
        channels[3] = np.abs(channels[3]) + 0.5
        arrays[layer] = (rng.standard_normal(shape, np.float32), channels)
    return arrays


def write(path, name, title, prefix="", extra=()):
    """Writes `network(name)` as a file of this origin; returns its tensors."""
    origin, tensors = ORIGINS[title], {key: np.zeros(3, np.float32) for key in extra}
    for layer, (kernel, channels) in network(name).items():
        names = origin.names(layer, LAYERS[name])
        if not origin.torch:
            keras_depthwise = title == "folded Keras" and layer.endswith("depthwise")
            stored = kernel.swapaxes(2, 3) if keras_depthwise else kernel
            tensors |= {
                f"{names.convolution}/kernel": stored,
                f"{names.convolution}/bias": channels[1],
            }
            continue
        tensors[f"{names.convolution}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        if names.norm is None:
            tensors[f"{names.convolution}.bias"] = channels[1]
        else:
            parts = zip(("weight", "bias", "running_mean", "running_var"), channels, strict=True)
            tensors |= {f"{names.norm}.{part}": value for part, value in parts}
            tensors[f"{names.norm}.num_batches_tracked"] = np.array(0)
    tensors = {prefix + key: np.ascontiguousarray(value) for key, value in tensors.items()}
    if path.suffix == ".npz":
        np.savez(path, **tensors)
    else:
        save_file(tensors, path)
    return tensors


@pytest.mark.parametrize(("title", "name"), LITERAL)
def test_names_are_those_of_the_origin(tmp_path, title, name):
    tensors = write(tmp_path / "w.safetensors", name, title)
    found = {key: tensors[key].shape for key in LITERAL[title, name]}
    assert found == LITERAL[title, name]


def test_every_torch_origin_gives_the_same_parameters(tmp_path):
    loaded = []
    for title in TORCH:
        write(tmp_path / "w.safetensors", "efficientnet_b4", title)
        loaded.append(load_efficientnet(tmp_path / "w.safetensors", LAYERS["efficientnet_b4"]))
    for other in loaded[1:]:
        jax.tree.map(np.testing.assert_array_equal, loaded[0], other)


def test_folding(tmp_path):
    """A folded layer gives what convolution and BatchNorm (epsilon 1e-3) give one after another."""
    write(tmp_path / "w.safetensors", "efficientnetv2_b0", "timm")
    params = load_efficientnet(tmp_path / "w.safetensors", LAYERS["efficientnetv2_b0"])
    arrays = network("efficientnetv2_b0")
    kernel, (scale, bias, mean, variance) = arrays["block5e/expand"]
    x = np.random.default_rng(1).standard_normal((5, 112))
    expected = (x @ kernel[0, 0] - mean) / np.sqrt(variance + 1e-3) * scale + bias
    layer = params["block5e"]["expand"]
    np.testing.assert_allclose(
        x @ layer["kernel"][0, 0] + layer["bias"], expected, rtol=1e-4, atol=1e-4
    )
    _, (_, bias, _, _) = arrays["block5e/excite"]
    np.testing.assert_array_equal(params["block5e"]["excite"]["bias"], bias)


@pytest.mark.parametrize("title", ["folded Keras", "promptmad"])
def test_folded_origins_are_taken_as_they_are(tmp_path, title):
    write(tmp_path / "w.npz", "efficientnetv2_b0", title)
    _, params = load_backbone(BackboneConfig("efficientnetv2_b0", str(tmp_path / "w.npz")))
    for layer in ("depthwise", "project"):
        kernel, channels = network("efficientnetv2_b0")[f"block4b/{layer}"]
        np.testing.assert_array_equal(params["block4b"][layer]["kernel"], kernel)
        np.testing.assert_array_equal(params["block4b"][layer]["bias"], channels[1])


@pytest.mark.parametrize(
    ("title", "prefix", "beside"),
    [
        ("EfficientNet-PyTorch", "module.backbone.", "module.reconstruction.input_proj.weight"),
        ("EfficientNet-PyTorch", "", "_fc.weight"),
        ("EfficientNet-PyTorch", "", "_blocks.31._bn0.weight"),
        ("timm", "", "blocks.6.1.conv_pw.weight"),
        ("transformers", "efficientnet.", "classifier.weight"),
    ],
)
def test_what_is_not_needed_may_stand_beside(tmp_path, title, prefix, beside):
    path = tmp_path / "w.safetensors"
    tensors = write(path, "efficientnet_b4", title, prefix)
    save_file(tensors | {beside: np.zeros(3, np.float32)}, path)
    params = load_efficientnet(path, LAYERS["efficientnet_b4"])
    assert params["block5f"]["project"]["kernel"].shape == (1, 1, 960, 160)


def faulty(path, change):
    tensors = write(path, "efficientnetv2_b0", "timm")
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(UserError) as caught:
        load_efficientnet(path, LAYERS["efficientnetv2_b0"])
    return str(caught.value)


def test_missing_unknown_and_misshapen_keys_are_listed(tmp_path):
    def change(tensors):
        del tensors["blocks.3.0.bn2.running_var"]
        tensors["surplus"] = np.zeros(1)
        tensors["bn1.bias"] = np.zeros(7, np.float32)

    message = faulty(tmp_path / "w.safetensors", change)
    assert "1 missing: blocks.3.0.bn2.running_var;" in message
    assert "1 unknown: surplus;" in message
    assert "1 of another shape: bn1.bias (7,) instead of (32,)" in message
    assert str(tmp_path / "w.safetensors") in message


def test_values_that_are_not_finite(tmp_path):
    def change(tensors):
        tensors["blocks.3.0.bn2.running_var"][0] = np.nan

    message = faulty(tmp_path / "w.safetensors", change)
    assert "block4a/depthwise/kernel is not finite" in message


def test_weights_of_the_other_network(tmp_path):
    write(tmp_path / "w.safetensors", "efficientnetv2_b0", "timm")
    with pytest.raises(UserError, match=r"do not fit this backbone.*check the name"):
        load_efficientnet(tmp_path / "w.safetensors", LAYERS["efficientnet_b4"])


def test_unknown_origin_names_the_known_ones(tmp_path):
    save_file({"resnet.weight": np.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"first keys are resnet\.weight; known are .*timm"):
        load_efficientnet(tmp_path / "w.safetensors", LAYERS["efficientnet_b4"])
