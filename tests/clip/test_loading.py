import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from promptmad_jax.clip.config import ClipConfig
from promptmad_jax.clip.loading import load_text, load_vision
from promptmad_jax.clip.vision import encode_images
from promptmad_jax.clip.weights.clip import read_canonical, write_format
from promptmad_jax.runtime.errors import UserError
from tests.clip.narrow import VISION, golden, golden_weights, relative

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
    def write(tensors, document=DOCUMENT):
        weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
        save_file(tensors, weights)
        config.write_text(json.dumps(document))
        return weights, config

    return write


@pytest.mark.parametrize("format", ["transformers", "openai", "promptmad"])
def test_vision_tower_of_each_format(files, format):
    one = ClipConfig(vision=VISION)
    arrays = read_canonical(golden_weights("clip_vision"), one, "the golden")
    tower, graph, params = load_vision(*files(write_format(arrays, one, format)))
    assert tower == VISION
    embedding = encode_images(graph, params, GOLDEN["native/images"]).embedding
    assert relative(embedding, GOLDEN["native/embedding/gelu"]) < 1e-5


def test_half_precision_becomes_float32(files):
    half = {k: v.astype(np.float16) for k, v in golden_weights("clip_vision").items()}
    _, _, params = load_vision(*files(half))
    assert params["class_embedding"].dtype == np.float32
    assert params["layers"]["2"]["attention"]["out"]["kernel"].dtype == np.float32


def test_a_tower_that_is_not_there(files):
    weights, config = files(golden_weights("clip_vision"))
    with pytest.raises(UserError, match=r"config\.json: no text tower of CLIP"):
        load_text(weights, config)
    with pytest.raises(UserError, match=r"model\.safetensors: no text tower of CLIP"):
        load_text(weights, None)
