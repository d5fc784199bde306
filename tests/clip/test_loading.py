import json

import jax
import numpy as np
import pytest
from flax import traverse_util

from promptmad_jax.clip.config import ClipConfig
from promptmad_jax.clip.loading import load_clip
from promptmad_jax.clip.transformer import graph_and_shapes
from promptmad_jax.clip.vision import ClipVision
from promptmad_jax.clip.weights.clip import FORMATS, read_canonical, write_format
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights.files import write_tensors
from tests.clip.narrow import VISION, encode_images, golden, golden_weights, relative

GOLDEN = golden("clip_vision")
DOCUMENT = {
    "model_type": "clip_vision_model",
    "image_size": 12,
    "patch_size": 4,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "projection_dim": 6,
    "hidden_act": "gelu",
}


@pytest.fixture
def files(tmp_path):
    def write(tensors, name="model.safetensors"):
        weights, config = tmp_path / name, tmp_path / "config.json"
        write_tensors(weights, tensors)
        config.write_text(json.dumps(DOCUMENT))
        return weights, config

    return write


@pytest.mark.parametrize("format", FORMATS)
def test_vision_tower_of_each_format(files, format):
    one = ClipConfig(vision=VISION)
    arrays = read_canonical(golden_weights("clip_vision"), one, "the golden")
    name = "flax_model.msgpack" if format == "flax" else "model.safetensors"
    config, params = load_clip(*files(write_format(arrays, one, format), name), ["vision"])
    assert config == one
    flat = traverse_util.flatten_dict(params, sep="/")
    assert flat.keys() == arrays.keys()
    assert all(flat[path].tobytes() == array.tobytes() for path, array in arrays.items())
    graph, _ = graph_and_shapes(ClipVision, VISION)
    embedding = encode_images(graph, params["vision"], GOLDEN["native/images"]).embedding
    assert relative(embedding, GOLDEN["native/embedding/gelu"]) < 1e-5


def test_half_precision_becomes_float32(files):
    half = {k: v.astype(np.float16) for k, v in golden_weights("clip_vision").items()}
    _, params = load_clip(*files(half), ["vision"])
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}


def test_a_tower_that_is_not_there(files):
    weights, config = files(golden_weights("clip_vision"))
    with pytest.raises(UserError, match=r"config\.json: no text tower of CLIP"):
        load_clip(weights, config)
    with pytest.raises(UserError, match=r"model\.safetensors: no text tower of CLIP"):
        load_clip(weights, None)
