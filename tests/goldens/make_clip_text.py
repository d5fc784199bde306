"""Writes clip_text.npz: text vectors of torch's CLIP for a narrow tower with random weights.

Run from the repository: `python tests/goldens/make_clip_text.py`. Needs torch and transformers.
Twelve layers, so that their order shows; the weights are under Hugging Face's names.
"""

import pathlib

import numpy as np
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

SIZES = {
    "vocab_size": 40,
    "max_position_embeddings": 12,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 12,
    "num_attention_heads": 2,
    "projection_dim": 6,
}
START, END = 38, 39


def tower(activation, eos_token_id):
    config = CLIPTextConfig(
        **SIZES,
        hidden_act=activation,
        eos_token_id=eos_token_id,
        bos_token_id=START,
        pad_token_id=END,
    )
    return CLIPTextModelWithProjection(config).eval()


def weights():
    torch.manual_seed(0)
    model = tower("gelu", END)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn_like(value)
            value.copy_(1 + 0.3 * noise if "norm" in name and "weight" in name else 0.4 * noise)
    return model.state_dict()


def token_ids():
    ids = np.full((4, 12), END, np.int32)
    rng = np.random.default_rng(0)
    for row, length in zip(ids, (2, 5, 9, 12), strict=True):
        row[0] = START
        row[1 : length - 1] = rng.integers(0, START, length - 2)
    return ids


def main():
    state, ids = weights(), token_ids()
    arrays = {f"weights/{name}": value.numpy() for name, value in state.items()}
    for activation, eos_token_id in (("quick_gelu", 2), ("gelu", END)):
        model = tower(activation, eos_token_id)
        model.load_state_dict(state)
        with torch.no_grad():
            vectors = model.double()(torch.tensor(ids, dtype=torch.long)).text_embeds
        arrays[f"vectors/{activation}"] = vectors.numpy().astype(np.float32)
    np.savez_compressed(pathlib.Path(__file__).with_name("clip_text.npz"), ids=ids, **arrays)


if __name__ == "__main__":
    main()
