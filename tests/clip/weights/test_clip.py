import math
from dataclasses import replace

import numpy as np
import pytest

from promptmad_jax.clip.config import ClipConfig, ClipTextConfig, ClipVisionConfig
from promptmad_jax.clip.weights.clip import (
    FORMATS,
    detect,
    infer_config,
    read_canonical,
    write_format,
)
from promptmad_jax.clip.weights.shapes import clip_shapes
from promptmad_jax.runtime.errors import UserError

TEXT = ClipTextConfig(
    vocabulary=11, context=5, width=128, hidden=6, layers=2, heads=2, projection=3, eos_id=2
)
VISION = ClipVisionConfig(image=12, patch=4, width=64, hidden=7, layers=11, heads=1, projection=3)
CONFIG = ClipConfig(TEXT, VISION)
BUFFERS = {
    "promptmad": {},
    "transformers": {"text_model.embeddings.position_ids": np.arange(5)[None]},
    "openai": {
        "input_resolution": np.array(12),
        "context_length": np.array(5),
        "vocab_size": np.array(11),
    },
    "flax": {},
}


def canonical(config=CONFIG, dtype=np.float16):
    rng = np.random.default_rng(0)
    return {
        k: np.asarray(rng.standard_normal(s)).astype(dtype) for k, s in clip_shapes(config).items()
    }


def assert_same_bits(actual, expected):
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        assert (actual[key].dtype, actual[key].shape) == (value.dtype, value.shape), key
        assert actual[key].tobytes() == value.tobytes(), key


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("format", FORMATS)
def test_there_and_back_to_the_bit(format, dtype):
    ours = canonical(dtype=dtype)
    theirs = write_format(ours, CONFIG, format)
    assert detect(theirs) == format
    back = read_canonical({**theirs, **BUFFERS[format]}, CONFIG, "the test")
    assert_same_bits(back, ours)
    assert_same_bits(write_format(back, CONFIG, format), theirs)


@pytest.mark.parametrize("format", FORMATS)
def test_sizes_follow_from_the_shapes(format):
    theirs = {**write_format(canonical(), CONFIG, format), **BUFFERS[format]}
    assert infer_config(theirs, "the test") == CONFIG
    gelu = infer_config(theirs, "the test", activation="gelu")
    assert gelu.text == replace(TEXT, activation="gelu")
    assert gelu.vision == replace(VISION, activation="gelu")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("side", ["text", "vision"])
def test_one_tower_of_a_whole_model(format, side):
    theirs = {**write_format(canonical(), CONFIG, format), **BUFFERS[format]}
    one = ClipConfig(**{side: getattr(CONFIG, side)})
    arrays = read_canonical(theirs, one, "the test")
    assert_same_bits(arrays, {k: v for k, v in canonical().items() if k.startswith(f"{side}/")})
    alone = write_format(arrays, one, format)
    assert detect(alone) == format
    assert infer_config(alone, "the test") == one
    assert_same_bits(read_canonical(alone, one, "the test"), arrays)


@pytest.mark.parametrize("side", ["text", "vision"])
def test_a_tower_without_projection_or_prefix(side):
    one = ClipConfig(**{side: replace(getattr(CONFIG, side), projection=None)})
    theirs = write_format(canonical(one), one, "transformers")
    short = {key.removeprefix(f"{side}_model."): value for key, value in theirs.items()}
    assert all(key.split(".")[0] != f"{side}_model" for key in short)
    for tensors in (theirs, short):
        assert infer_config(tensors, "the test") == one
        assert_same_bits(read_canonical(tensors, one, "the test"), canonical(one))


def test_wrapper_of_a_distributed_training():
    theirs = write_format(canonical(), CONFIG, "openai")
    wrapped = {f"module.{key}": value for key, value in theirs.items()}
    assert infer_config(wrapped, "the test") == CONFIG
    assert_same_bits(read_canonical(wrapped, CONFIG, "the test"), canonical())


def test_names_are_those_of_transformers():
    pytest.importorskip("torch")
    from transformers import CLIPConfig, CLIPModel

    text = {
        "vocab_size": 11,
        "max_position_embeddings": 5,
        "hidden_size": 128,
        "intermediate_size": 6,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    vision = {
        "image_size": 12,
        "patch_size": 4,
        "hidden_size": 64,
        "intermediate_size": 7,
        "num_hidden_layers": 11,
        "num_attention_heads": 1,
    }
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=3))
    theirs = {name: value.numpy() for name, value in model.state_dict().items()}
    ours = read_canonical(theirs, CONFIG, "the test")
    assert_same_bits(write_format(ours, CONFIG, "transformers"), theirs)


OPENAI_LAYER = """ln_1.weight ln_1.bias ln_2.weight ln_2.bias attn.in_proj_weight attn.in_proj_bias
attn.out_proj.weight attn.out_proj.bias mlp.c_fc.weight mlp.c_fc.bias mlp.c_proj.weight
mlp.c_proj.bias"""
OPENAI = """positional_embedding text_projection logit_scale visual.class_embedding visual.proj
visual.positional_embedding visual.conv1.weight visual.ln_pre.weight visual.ln_pre.bias
visual.ln_post.weight visual.ln_post.bias token_embedding.weight ln_final.weight ln_final.bias"""
FLAX_LAYER = """layer_norm1/scale layer_norm1/bias layer_norm2/scale layer_norm2/bias
self_attn/q_proj/kernel self_attn/q_proj/bias self_attn/k_proj/kernel self_attn/k_proj/bias
self_attn/v_proj/kernel self_attn/v_proj/bias self_attn/out_proj/kernel self_attn/out_proj/bias
mlp/fc1/kernel mlp/fc1/bias mlp/fc2/kernel mlp/fc2/bias"""
FLAX = """text_model/embeddings/token_embedding/embedding text_model/final_layer_norm/scale
text_model/embeddings/position_embedding/embedding text_model/final_layer_norm/bias
text_projection/kernel visual_projection/kernel logit_scale
vision_model/embeddings/class_embedding vision_model/embeddings/patch_embedding/kernel
vision_model/embeddings/position_embedding/embedding vision_model/pre_layrnorm/scale
vision_model/pre_layrnorm/bias vision_model/post_layernorm/scale vision_model/post_layernorm/bias"""


@pytest.mark.parametrize(
    ("format", "outside", "layer", "prefixes"),
    [
        ("openai", OPENAI, OPENAI_LAYER, ("{}transformer.resblocks.0.", "", "visual.")),
        ("flax", FLAX, FLAX_LAYER, ("{}_model/encoder/layers/0/", "text", "vision")),
    ],
)
def test_names_in_full(format, outside, layer, prefixes):
    """As transformers 4.46's FlaxCLIPModel saves them, and OpenAI's code."""
    one = ClipConfig(replace(TEXT, layers=1), replace(VISION, layers=1))
    prefix, *sides = prefixes
    expected = {prefix.format(side) + name for side in sides for name in layer.split()}
    assert {row.theirs for row in FORMATS[format].rows(one)} == expected | set(outside.split())


def test_flax_kernels_are_transposed_ones_of_transformers():
    ours = canonical(dtype=np.float32)
    flax, other = (write_format(ours, CONFIG, name) for name in ("flax", "transformers"))
    name = "text_model/encoder/layers/1/mlp/fc1/kernel"
    np.testing.assert_array_equal(flax[name].T, other["text_model.encoder.layers.1.mlp.fc1.weight"])
    patches = flax["vision_model/embeddings/patch_embedding/kernel"].transpose(3, 2, 0, 1)
    torch = other["vision_model.embeddings.patch_embedding.weight"]
    np.testing.assert_array_equal(patches, torch)


def test_openai_shapes_and_packing_against_transformers():
    ours = canonical(dtype=np.float32)
    openai, other = (write_format(ours, CONFIG, name) for name in ("openai", "transformers"))
    for root, side in (("transformer", "text"), ("visual.transformer", "vision")):
        layer = f"{side}_model.encoder.layers.1"
        for leaf in ("weight", "bias"):
            parts = [other[f"{layer}.self_attn.{part}_proj.{leaf}"] for part in "qkv"]
            packed = openai[f"{root}.resblocks.1.attn.in_proj_{leaf}"]
            np.testing.assert_array_equal(packed, np.concatenate(parts))
        fc = openai[f"{root}.resblocks.1.mlp.c_fc.weight"]
        np.testing.assert_array_equal(fc, other[f"{layer}.mlp.fc1.weight"])
    np.testing.assert_array_equal(openai["text_projection"].T, other["text_projection.weight"])
    np.testing.assert_array_equal(openai["visual.proj"].T, other["visual_projection.weight"])
    patches = other["vision_model.embeddings.patch_embedding.weight"]
    np.testing.assert_array_equal(openai["visual.conv1.weight"], patches)
    assert patches.shape == (64, 3, 4, 4)
    assert openai["text_projection"].shape == (128, 3)
    assert openai["logit_scale"].shape == ()


def test_every_key_that_does_not_fit_is_listed():
    theirs = write_format(canonical(), CONFIG, "openai")
    del theirs["transformer.resblocks.1.ln_1.bias"]
    theirs["visual.attnpool.weight"] = np.zeros(3)
    theirs["text_projection"] = theirs["text_projection"].T
    with pytest.raises(UserError) as caught:
        read_canonical(theirs, CONFIG, "clip.safetensors")
    message = str(caught.value)
    assert "clip.safetensors, read as CLIP of format openai" in message
    assert "1 missing: transformer.resblocks.1.ln_1.bias" in message
    assert "1 unexpected: visual.attnpool.weight" in message
    assert "1 of another shape: text_projection (3, 128) instead of (128, 3)" in message


def test_what_is_written_must_be_whole():
    ours = canonical()
    del ours["vision/class_embedding"]
    with pytest.raises(UserError, match="1 missing: vision/class_embedding"):
        write_format(ours, CONFIG, "transformers")


@pytest.mark.parametrize("read", [infer_config, lambda t, o: read_canonical(t, CONFIG, o)])
def test_other_files_are_refused(read):
    assert detect({"conv.weight": np.zeros(1)}) is None
    with pytest.raises(
        UserError, match=r"x\.npz: no CLIP weights of a known format .*conv\.weight"
    ):
        read({"conv.weight": np.zeros(1)}, "x.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"positional_embedding": None},
        {"token_embedding.weight": np.zeros((2, 3, 4))},
        {"visual.conv1.weight": np.zeros((2, 3))},
    ],
)
def test_half_a_tower_tells_no_sizes(change):
    theirs = {**write_format(canonical(), CONFIG, "openai"), **change}
    theirs = {key: value for key, value in theirs.items() if value is not None}
    with pytest.raises(UserError, match="no whole CLIP tower of format openai"):
        infer_config(theirs, "the test")


def test_text_of_a_model_with_a_resnet():
    theirs = write_format(canonical(ClipConfig(TEXT)), ClipConfig(TEXT), "openai")
    resnet = {
        "visual.conv1.weight": np.zeros((8, 3, 3, 3)),
        "visual.layer1.0.bn1.bias": np.zeros(8),
    }
    assert infer_config({**theirs, **resnet}, "the test") == ClipConfig(TEXT)
    read = read_canonical({**theirs, **resnet}, ClipConfig(TEXT), "the test")
    assert_same_bits(read, canonical(ClipConfig(TEXT)))


@pytest.mark.parametrize(("width", "heads"), [(768, 12), (1024, 16), (1280, 16), (1664, 16)])
def test_heads_of_published_vision_towers(width, heads):
    config = ClipConfig(vision=replace(VISION, width=width, heads=heads, layers=1))
    theirs = {
        key: np.broadcast_to(np.float32(0), shape) for key, shape in clip_shapes(config).items()
    }
    assert infer_config(theirs, "the test") == config


def test_parameters_at_published_size():
    shapes = clip_shapes(ClipConfig(ClipTextConfig(), ClipVisionConfig()))
    assert sum(math.prod(shape) for shape in shapes.values()) == 151_277_313
