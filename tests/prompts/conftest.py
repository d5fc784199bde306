"""Folders in Hugging Face's form, made from the narrow tower of goldens/clip_text.npz."""

import json

import pytest
from safetensors.numpy import save_file

from tests.clip.narrow import golden_weights

LETTERS = "abcdefghijklmnopqrs"  # 19 letters, each alone and at a word's end: ids 0 to 37
SECTION = {
    "vocab_size": 40,
    "max_position_embeddings": 12,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 12,
    "num_attention_heads": 2,
    "hidden_act": "gelu",
    "eos_token_id": 39,
    "projection_dim": 6,
}


@pytest.fixture
def weights():
    """The tower's tensors under Hugging Face's names."""
    return golden_weights("clip_text")


@pytest.fixture
def clip_folder(tmp_path, weights):
    """Writes a folder with weights, config.json and a tokenizer of single letters."""

    def write(name="clip", tensors=weights, config=None):
        folder = tmp_path / name
        folder.mkdir()
        save_file(dict(tensors), folder / "model.safetensors")
        document = config or {
            "model_type": "clip_text_model",
            **SECTION,
            "architectures": ["CLIPTextModelWithProjection"],
        }
        (folder / "config.json").write_text(json.dumps(document))
        words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
        words += ["<|startoftext|>", "<|endoftext|>"]
        (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
        (folder / "merges.txt").write_text("#version: 0.2\n")
        return folder

    return write
