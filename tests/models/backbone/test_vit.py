"""DINOv2 and DINOv3: states against transformers and timm, weights both ways, the protocol."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from promptmad_jax.clip.positions import resize_patches
from promptmad_jax.commands.convert import convert
from promptmad_jax.models.backbone.backbone import BackboneConfig, build_backbone, load_backbone
from promptmad_jax.models.backbone.protocol import level_channels
from promptmad_jax.models.backbone.vit import VITS
from promptmad_jax.models.backbone.vit_backbone import ViTBackbone
from promptmad_jax.models.backbone.weights.vit import detect, infer_shapes, write_format
from promptmad_jax.runtime.errors import UserError
from tests.goldens.dino import NETS, SIZES

TOLERANCE = 1e-5  # of a state's largest value
ORIGINS = ("transformers", "timm")


@functools.cache
def golden():
    with np.load(pathlib.Path(__file__).parents[2] / "goldens/dino.npz") as file:
        return {key: file[key] for key in file.files}


def stored(prefix):
    return {k.removeprefix(prefix): v for k, v in golden().items() if k.startswith(prefix)}


def images(net, patches):
    shape = (1, *(side * net.patch for side in patches), 3)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def tapping(net, positions="transformers", norm=False, dtype="float32"):
    """A backbone with a level per block."""
    groups = tuple((i,) for i in range(net.layers))
    return ViTBackbone(net, groups, norm, positions, dtype)


@functools.cache
def tapped(backbone, origin, size):
    """Levels of a golden's weights."""
    net = backbone.architecture
    tensors = stored(f"{net.name}/{origin}/weights/")
    params = backbone.to_params(backbone.read_canonical(tensors, "golden"))
    return [np.asarray(x) for x in jax.jit(backbone)(params, images(net, SIZES[size]))]


def error(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("name", NETS)
def test_stored_states(name, origin, size):
    net, expected = NETS[name], stored(f"{name}/{origin}/{size}/")
    found = tapped(tapping(net, origin), origin, size)
    assert max(error(x, expected[str(i)]) for i, x in enumerate(found)) < TOLERANCE
    last = tapped(tapping(net, origin, norm=True), origin, size)[-1]
    assert error(last, expected[str(net.layers)]) < TOLERANCE


def test_another_resizing_of_positions_shows():
    found = tapped(tapping(NETS["dinov2"], "timm"), "transformers", "wide")
    assert error(found[0], golden()["dinov2/transformers/wide/0"]) > 1e-3


def test_a_level_averages_its_group():
    """Blocks behind the last group are left out, and the last LayerNorm unless it is applied."""
    net = NETS["dinov2"]
    one, two = tapped(tapping(net), "transformers", "native")
    both = tapped(
        ViTBackbone(net, ((0, 1), (0,)), False, "transformers", "float32"), "transformers", "native"
    )
    np.testing.assert_allclose(both[0], (one + two) / 2, rtol=1e-6)
    np.testing.assert_array_equal(both[1], one)
    first = ViTBackbone(net, ((0,),), False, "transformers", "float32").parameter_shapes()
    assert set(first["blocks"]) == {"0"} and "norm" not in first


@pytest.mark.parametrize(
    ("origin", "antialias", "offset"),
    [("transformers", False, 0.0), ("timm", True, 0.0), ("dinov2", False, 0.1)],
)
@pytest.mark.parametrize("shape", [(16, 16), (37, 28), (40, 9)])
def test_positions_as_torch_resizes_them(origin, antialias, offset, shape):
    torch = pytest.importorskip("torch")
    table = np.random.default_rng(0).standard_normal((37 * 37, 4)).astype(np.float32)
    size = {"scale_factor": tuple((n + offset) / 37 for n in shape)} if offset else {"size": shape}
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(table).reshape(1, 37, 37, 4).permute(0, 3, 1, 2),
        **size,
        mode="bicubic",
        antialias=antialias,
    )
    expected = expected[0].permute(1, 2, 0).reshape(-1, 4).numpy()
    backbone = dataclasses.replace(tapping(VITS["dinov2_vits14"]), positions=origin)
    found = backbone._resized({"positions": jnp.asarray(table)}, shape)
    assert error(found, expected) < TOLERANCE
    np.testing.assert_array_equal(
        found, resize_patches(jnp.asarray(table), 37, shape, antialias, offset)
    )


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("name", NETS)
def test_there_and_back_to_the_bit(name, origin, dtype):
    tensors = {k: v.astype(dtype) for k, v in stored(f"{name}/{origin}/weights/").items()}
    assert detect(tensors) == origin
    shapes = infer_shapes(tensors, "golden", origin)
    ours = tapping(NETS[name], norm=True).read_canonical(tensors, "golden")
    assert {path: value.shape for path, value in ours.items()} == shapes
    assert detect(ours) == "promptmad"
    back = write_format(ours, origin)
    tensors.pop("embeddings.mask_token", None)
    assert back.keys() == tensors.keys()
    for key, value in back.items():
        assert value.dtype == tensors[key].dtype
        np.testing.assert_array_equal(value, tensors[key], err_msg=key)


@pytest.mark.parametrize("name", NETS)
def test_other_origins_get_the_same_network(name):
    """Through timm, which adds the position of the class token or has no biases, and back."""
    backbone = tapping(NETS[name], norm=True)
    ours = backbone.read_canonical(stored(f"{name}/timm/weights/"), "golden")
    again = backbone.read_canonical(write_format(ours, "transformers"), "written")
    expected = backbone.to_params(ours)
    jax.tree.map(np.testing.assert_array_equal, backbone.to_params(again), expected)


def test_convert_knows_the_files(tmp_path):
    tensors = stored("dinov2_reg/transformers/weights/")
    paths = [str(tmp_path / f"{name}.safetensors") for name in ("theirs", "ours", "back")]
    save_file(tensors, paths[0])
    assert "DINO: 48 tensors, transformers to promptmad" in convert(*paths[:2], "auto", "promptmad")
    convert(*paths[1:], "auto", "transformers")
    back = load_file(paths[2])
    assert tensors.keys() - back.keys() == {"embeddings.mask_token"}
    for key, value in back.items():
        np.testing.assert_array_equal(value, tensors[key])


def test_wrong_files_are_refused():
    backbone, tensors = tapping(NETS["dinov2"]), stored("dinov2/transformers/weights/")
    with pytest.raises(UserError, match=r"of a known origin; its first keys are a; known are tr"):
        backbone.read_canonical({"a": np.ones(2)}, "w")
    tensors.pop("encoder.layer.0.norm1.bias")
    tensors["extra"] = np.ones(2)
    with pytest.raises(UserError, match=r"1 missing: encoder\.layer\.0.* 1 unexpected: extra"):
        backbone.read_canonical(tensors, "w")
    with pytest.raises(UserError, match=r"w: no whole DINOv2 or DINOv3 network of format transf"):
        infer_shapes(tensors, "w", "transformers")


# Keys of the published config.json files that decide the network.
PUBLISHED = {
    "dinov2_vitb14": {
        "model_type": "dinov2",
        "hidden_size": 768,
        "image_size": 518,
        "layer_norm_eps": 1e-06,
        "mlp_ratio": 4,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "patch_size": 14,
        "qkv_bias": True,
        "use_swiglu_ffn": False,
    },
    "dinov3_vits16plus": {
        "model_type": "dinov3_vit",
        "hidden_act": "silu",
        "hidden_size": 384,
        "intermediate_size": 1536,
        "key_bias": False,
        "layer_norm_eps": 1e-05,
        "num_attention_heads": 6,
        "num_hidden_layers": 12,
        "num_register_tokens": 4,
        "patch_size": 16,
        "query_bias": True,
        "rope_theta": 100.0,
        "use_gated_mlp": True,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_folder_as_the_hub_has_it(tmp_path, name):
    """config.json and model.safetensors, whole: what a user's first command reads."""
    tiny = dataclasses.replace(NETS["dinov2" if "v2" in name else "dinov3_gated"], name=name)
    document = PUBLISHED[name] | {
        "hidden_size": tiny.width,
        "num_attention_heads": tiny.heads,
        "num_hidden_layers": tiny.layers,
        "image_size": tiny.positions * tiny.patch,
        "intermediate_size": tiny.hidden,
        "num_register_tokens": tiny.registers,
    }
    (tmp_path / "config.json").write_text(json.dumps(document))
    golden_name = "dinov2" if "v2" in name else "dinov3_gated"
    weights = stored(f"{golden_name}/transformers/weights/")
    path = tmp_path / "model.safetensors"
    save_file(weights, path)
    backbone = tapping(tiny)
    params = backbone.read_params(path)
    shapes = jax.tree.map(lambda x: x.shape, backbone.parameter_shapes())
    assert jax.tree.map(np.shape, params) == shapes
    with pytest.raises(UserError, match=r"not the network dinov2_vitl14: .*hidden_size is 8 inst"):
        load_backbone(BackboneConfig("dinov2_vitl14", str(tmp_path)))
    save_file(weights | {"embeddings.cls_token": np.full((1, 1, 8), np.nan, np.float16)}, path)
    with pytest.raises(UserError, match="class_token is not finite; the file is damaged"):
        backbone.read_params(path)


def test_the_published_networks():
    """Parameters of the whole networks, with the mask token that the files also have."""
    published = {
        "dinov2_vits14": 22_056_576,
        "dinov2_vitb14": 86_580_480,
        "dinov2_vitg14": 1_136_480_768,
    }
    for name, count in published.items():
        net = VITS[name]
        shapes = ViTBackbone(net, ((net.layers - 1,),), True, "timm", "float32")._canonical_shapes()
        assert sum(np.prod(shape) for shape in shapes.values()) + net.width == count, name


@pytest.mark.parametrize("name", VITS)
def test_groups_are_of_eight_blocks_in_the_middle(name):
    first, second = VITS[name].groups
    step = VITS[name].layers // 12
    assert (first[0], second[-1]) == (2 * step, 9 * step) and len(first + second) == 8


@pytest.mark.parametrize("name", ["dinov2_vits14_reg", "dinov3_vits16plus"])
def test_levels_at_the_declared_strides(name):
    backbone = build_backbone(BackboneConfig(name))
    net, side = backbone.architecture, 4 * backbone.image_multiple
    pixels = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    levels = jax.eval_shape(backbone, backbone.parameter_shapes(), pixels)
    assert [x.shape for x in levels] == [(2, 4, 4, net.width)] * 2
    assert level_channels(backbone) == {net.patch: 2 * net.width}
    assert hash(backbone) == hash(build_backbone(BackboneConfig(name, seed=1)))


def test_random_weights_follow_the_seed_and_carry_signal():
    backbone = tapping(NETS["dinov3_gated"])
    one, same, other = (backbone.random_params(seed) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert (one["class_token"] != other["class_token"]).all()
    assert jax.tree.map(np.shape, one) == jax.tree.map(
        lambda x: x.shape, backbone.parameter_shapes()
    )
    run = jax.jit(backbone)
    black, white = (run(one, np.full((1, 32, 32, 3), x, np.float32))[-1] for x in (-2, 2))
    assert np.abs(black - white).max() > 0.1


def test_bfloat16_stays_near():
    net = NETS["dinov2_reg"]
    full = tapped(tapping(net), "transformers", "wide")
    half = tapped(tapping(net, dtype="bfloat16"), "transformers", "wide")
    assert half[0].dtype == ml_dtypes.bfloat16
    assert max(error(h.astype(np.float32), f) for h, f in zip(half, full, strict=True)) < 0.05


def test_settings_that_no_network_has():
    with pytest.raises(ValueError, match="dinov2_vitb14 has blocks 0 to 11"):
        BackboneConfig("dinov2_vitb14", groups=((2, 12),))
    with pytest.raises(ValueError, match="efficientnet_b4 has no such blocks"):
        BackboneConfig(groups=((2, 3),))


def full_size(name, size):
    """Largest errors of all blocks against transformers, with random weights."""
    pytest.importorskip("torch", reason="compares with transformers' models, which need torch")
    from tests.goldens import make_dino

    net = VITS[name]
    model = make_dino.randomize(make_dino.of_transformers(net))
    pixels = make_dino.images(net, (size // net.patch,) * 2)
    expected = make_dino.states(model, net, pixels)[: net.layers]
    backbone = tapping(net)
    params = backbone.to_params(backbone.read_canonical(make_dino.saved_names(model), name))
    found = jax.jit(backbone)(params, pixels)
    return [error(np.asarray(x), y) for x, y in zip(found, expected, strict=True)]


@pytest.mark.full
@pytest.mark.parametrize("size", [224, 518])
@pytest.mark.parametrize(
    "name",
    "dinov2_vits14 dinov2_vits14_reg dinov2_vitb14 dinov2_vitl14_reg "
    "dinov3_vits16 dinov3_vits16plus dinov3_vitb16 dinov3_vitl16".split(),
)
def test_every_block_at_full_size(name, size):
    found = full_size(name, size)
    print(f"\n{name} {size}: {max(found):.1e} of the largest value")
    assert max(found) < TOLERANCE
