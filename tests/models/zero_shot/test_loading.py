"""A detector from files of the true form."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from promptmad_jax.clip.config import ClipConfig, ClipTextConfig, ClipVisionConfig
from promptmad_jax.clip.weights.clip import write_format
from promptmad_jax.models.zero_shot.config import MULTIADS
from promptmad_jax.models.zero_shot.loading import load_detector, random_detector
from promptmad_jax.runtime.errors import UserError

NARROW = {"heads": 2, "projection": 8, "layers": 1}
CLIP = ClipConfig(
    ClipTextConfig(**NARROW, width=16, hidden=32, context=112),
    ClipVisionConfig(**NARROW, width=24, hidden=48, image=12, patch=4),
)
CONFIG = replace(MULTIADS, image_size=16, taps=(1,))
NAMES = {"width": "hidden_size", "hidden": "intermediate_size", "heads": "num_attention_heads"}
NAMES |= {"layers": "num_hidden_layers", "projection": "projection_dim"}
NAMES |= {"vocabulary": "vocab_size", "context": "max_position_embeddings"}
NAMES |= {"eos_id": "eos_token_id", "image": "image_size", "patch": "patch_size"}


def section(tower):
    return {NAMES[name]: value for name, value in vars(tower).items() if name in NAMES}


@pytest.fixture
def folder(tmp_path):
    """Weights, config.json and tokenizer of a random CLIP under Hugging Face's names."""
    detector, frozen, tokenizer = random_detector(CONFIG, CLIP, 3)
    canonical = traverse_util.flatten_dict(frozen._asdict(), sep="/")
    canonical = {name: np.asarray(value) for name, value in canonical.items()}
    canonical["logit_scale"] = np.float32(4.6)
    tensors = write_format(canonical, detector.clip, "transformers")
    save_file(tensors, tmp_path / "model.safetensors")
    document = {
        "model_type": "clip",
        "projection_dim": 8,
        "text_config": section(detector.clip.text),
        "vision_config": section(detector.clip.vision),
    }
    (tmp_path / "config.json").write_text(json.dumps(document))
    tokenizer.backend.save_pretrained(tmp_path)
    return tmp_path


def test_files_give_the_detector_that_they_are_of(folder):
    ours, frozen, tokenizer = random_detector(CONFIG, CLIP, 3)
    loaded = load_detector(CONFIG, str(folder), "dapo.weights")
    assert loaded.detector == ours
    jax.tree.map(np.testing.assert_array_equal, loaded.frozen, frozen)
    tokens = [d.tokens(t, ("rust",)) for d, t in ((ours, tokenizer), loaded[::2])]
    jax.tree.map(np.testing.assert_array_equal, *tokens)


def test_half_precision_stores_half_of_the_image_tower(folder):
    config = replace(CONFIG, dtype="bfloat16")
    _, frozen, _ = load_detector(config, str(folder), "dapo.weights")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(frozen.vision)} == {"bfloat16"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(frozen.text)} == {"float32"}


def test_a_tower_alone_is_not_enough(folder):
    document = json.loads((folder / "config.json").read_text())
    alone = {"model_type": "clip_text_model", **document["text_config"]}
    (folder / "config.json").write_text(json.dumps(alone))
    with pytest.raises(UserError, match=r"config\.json: no vision tower of CLIP"):
        load_detector(CONFIG, str(folder), "dapo.weights")


def test_what_is_missing_is_said_under_the_name_of_the_setting(folder):
    with pytest.raises(UserError, match=r"dapo\.weights"):
        load_detector(CONFIG, str(folder / "nowhere.safetensors"), "dapo.weights")


def test_random_weights_follow_the_seed():
    leaves = [jax.tree.leaves(random_detector(CONFIG, CLIP, seed).frozen) for seed in (0, 0, 1)]
    assert all(np.array_equal(a, b) for a, b in zip(leaves[0], leaves[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(leaves[0], leaves[2], strict=True))
