import gzip
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from promptmad_jax.clip.config import (
    LEGACY_EOS,
    ClipConfig,
    ClipTextConfig,
    ClipVisionConfig,
)
from promptmad_jax.clip.loading import load_clip
from promptmad_jax.clip.text import ClipText, encode_ids
from promptmad_jax.clip.tokenizer import OPENAI_FILE, load_tokenizer
from promptmad_jax.clip.transformer import graph_and_shapes
from promptmad_jax.clip.weights.clip import read_canonical, write_format
from promptmad_jax.clip.weights.shapes import clip_shapes
from promptmad_jax.prompts.config import TextConfig
from promptmad_jax.prompts.encoders import clip_encoder
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights.files import write_tensors
from tests.clip.narrow import TEXT, golden

GOLDEN = golden("clip_text")
SECTION = {
    "vocab_size": 40,
    "max_position_embeddings": 12,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 12,
    "num_attention_heads": 2,
    "hidden_act": "gelu",
    "eos_token_id": 39,
}


def load_text(folder, config="config.json"):
    path = folder / config if config else None
    return load_clip(folder / "model.safetensors", path, ["text"])


def vectors_of(folder, ids):
    config, params = load_text(folder)
    return encode_ids(graph_and_shapes(ClipText, config.text)[0], params["text"], ids)


def full_model(weights):
    old_buffer = {"text_model.embeddings.position_ids": np.arange(12)[None]}
    vision = {
        "vision_model.embeddings.class_embedding": np.zeros(4, np.float32),
        "visual_projection.weight": np.zeros((6, 4), np.float32),
        "logit_scale": np.array(2.6, np.float32),
    }
    return {**weights, **vision, **old_buffer}


def without_prefix(weights):
    return {name.removeprefix("text_model."): value for name, value in weights.items()}


def test_loads_each_form_of_file(clip_folder, weights):
    full = {
        "model_type": "clip",
        "projection_dim": 6,
        "text_config": SECTION,
        "text_config_dict": None,
    }
    folders = [
        clip_folder("projected"),
        clip_folder("short names", without_prefix(weights)),
        clip_folder("full", full_model(weights), full),
    ]
    for folder in folders:
        np.testing.assert_allclose(
            vectors_of(folder, GOLDEN["ids"]), GOLDEN["vectors/gelu"], rtol=1e-4, atol=1e-5
        )


def test_loads_a_file_without_projection(clip_folder, weights):
    bare = {name: value for name, value in weights.items() if name != "text_projection.weight"}
    config = {
        "model_type": "clip_text_model",
        "architectures": ["CLIPTextModel"],
        **SECTION,
        "projection_dim": 6,
    }
    folder = clip_folder(tensors=bare, config=config)
    assert vectors_of(folder, GOLDEN["ids"]).shape == (4, 8)


def test_half_precision_becomes_float32(clip_folder, weights):
    half = {name: value.astype(np.float16) for name, value in weights.items()}
    folder = clip_folder(tensors=half)
    _, params = load_text(folder)
    assert params["text"]["token_embedding"]["embedding"].dtype == np.float32
    np.testing.assert_allclose(vectors_of(folder, GOLDEN["ids"]), GOLDEN["vectors/gelu"], atol=0.05)


def test_lists_every_key_that_does_not_fit(clip_folder, weights):
    broken = dict(weights)
    del broken["text_model.encoder.layers.3.mlp.fc1.bias"]
    broken["text_model.encoder.layers.12.mlp.fc1.bias"] = np.zeros(16, np.float32)
    broken["text_projection.weight"] = np.zeros((5, 8), np.float32)
    folder = clip_folder(tensors=broken)
    with pytest.raises(UserError) as caught:
        load_text(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "1 missing: text_model.encoder.layers.3.mlp.fc1.bias;" in message
    assert "1 unexpected: text_model.encoder.layers.12.mlp.fc1.bias;" in message
    assert "1 of another shape: text_projection.weight (5, 8) instead of (6, 8)." in message


def test_without_config_the_sizes_come_from_the_weights(clip_folder, weights, caplog):
    folder = clip_folder()
    (folder / "config.json").unlink()
    with caplog.at_level(logging.WARNING, logger="absl"):
        config, _ = load_text(folder, None)
    assert config.text == replace(TEXT, heads=1, activation="quick_gelu", eos_id=LEGACY_EOS)
    assert "no config.json" in caplog.text


def test_not_a_clip_file(clip_folder):
    folder = clip_folder(tensors={"conv.weight": np.zeros((2, 2), np.float32)})
    for config in (None, "config.json"):
        with pytest.raises(UserError, match=r"no CLIP weights .*conv\.weight"):
            load_text(folder, config)


def test_folder_in_openai_form_gives_the_vectors_of_hugging_face_form(tmp_path):
    tower = ClipTextConfig(
        vocabulary=515, context=24, width=64, hidden=32, layers=2, heads=1, projection=6, eos_id=514
    )
    config = ClipConfig(
        tower, ClipVisionConfig(image=8, patch=4, width=64, hidden=8, layers=1, heads=1)
    )
    rng = np.random.default_rng(0)
    arrays = {
        path: np.asarray(rng.standard_normal(shape), np.float32)
        for path, shape in clip_shapes(config).items()
    }
    openai, hugging_face = tmp_path / "openai", tmp_path / "hugging_face"
    for folder, form in ((openai, "openai"), (hugging_face, "transformers")):
        folder.mkdir()
        save_file(write_format(arrays, config, form), folder / "model.safetensors")
    (openai / OPENAI_FILE).write_bytes(gzip.compress(b"#version: 0.2\na b</w>\n"))
    load_tokenizer(openai / OPENAI_FILE).backend.save_pretrained(hugging_face)
    section = {**SECTION, "vocab_size": 515, "max_position_embeddings": 24, "hidden_size": 64}
    section |= {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 1}
    section |= {"eos_token_id": 514, "hidden_act": "quick_gelu"}
    document = {"model_type": "clip", "projection_dim": 6, "text_config": section}
    (hugging_face / "config.json").write_text(json.dumps(document))
    phrases = ("ab", "a Crack & a hole", "")
    vectors = [clip_encoder(str(folder)).encode(phrases) for folder in (openai, hugging_face)]
    np.testing.assert_array_equal(*vectors)
    assert vectors[0].shape == (3, 6)


def test_encoder_reads_a_folder(clip_folder):
    encode = clip_encoder(str(clip_folder())).encode
    vectors = encode(("ab ab", "ba", "ab ab"))
    assert vectors.shape == (3, 6)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[0], vectors[2], rtol=1e-6)
    assert not np.allclose(vectors[0], vectors[1], atol=1e-2)


def test_encoder_takes_the_file_itself(clip_folder):
    folder = clip_folder()
    by_file, by_folder = clip_encoder(str(folder / "model.safetensors")), clip_encoder(str(folder))
    assert by_file.fingerprint == by_folder.fingerprint


def test_batches_do_not_change_the_vectors(clip_folder):
    encode = clip_encoder(str(clip_folder())).encode
    phrases = tuple(f"{a}{b}" for a in "abcdefghi" for b in "abcdefghi")
    np.testing.assert_allclose(encode(phrases)[-1:], encode(phrases[-1:]), rtol=1e-4, atol=1e-5)


def test_fingerprint_follows_the_content(clip_folder, weights):
    first, copy = clip_folder("first"), clip_folder("copy")
    changed = dict(weights)
    changed["text_projection.weight"] = weights["text_projection.weight"] + 1
    other = clip_folder("other", changed)
    prints = [clip_encoder(str(folder)).fingerprint for folder in (first, copy, other)]
    assert prints[0] == prints[1] != prints[2]


def test_tokenizer_of_another_model_is_refused(clip_folder):
    folder = clip_folder()
    table = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({**table, "ab</w>": 40}))
    with pytest.raises(UserError, match="41 tokens"):
        clip_encoder(str(folder)).encode(("ab",))


def test_missing_tokenizer_names_the_folder(clip_folder):
    folder = clip_folder()
    (folder / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"holds no CLIP tokenizer; put vocab\.json"):
        clip_encoder(str(folder))


def test_pickle_points_to_the_converter(clip_folder):
    folder = clip_folder()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="convert"):
        clip_encoder(str(folder)).encode(("ab",))


def test_a_repository_with_flax_weights_alone(clip_folder, weights, monkeypatch, tmp_path):
    """As the main branch of the default, openai/clip-vit-base-patch32."""
    folder, config = clip_folder(), ClipConfig(TEXT)
    expected = clip_encoder(str(folder)).encode(("ab",))
    arrays = read_canonical(weights, config, "the golden")
    write_tensors(folder / "flax_model.msgpack", write_format(arrays, config, "flax"))
    (folder / "model.safetensors").unlink()
    repository = tmp_path / "cache" / "models--openai--clip-vit-base-patch32"
    for name in ("refs", "snapshots"):
        (repository / name).mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    folder.rename(repository / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    vectors = clip_encoder(TextConfig().weights).encode(("ab",))
    np.testing.assert_array_equal(vectors, expected)


def test_hub_id_offline_says_what_to_fetch(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="some-owner/clip-model") as caught:
        clip_encoder("some-owner/clip-model")
    assert "model.safetensors" in str(caught.value)
    assert "text.weights" in str(caught.value)
