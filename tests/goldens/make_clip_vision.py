"""Writes clip_vision.npz: outputs of torch's CLIP for a narrow vision tower with random weights.

Run from the repository: `python tests/goldens/make_clip_vision.py`. Needs torch and transformers.
The weights are under Hugging Face's names, images are NHWC. `large` is not square and larger than
the 12 pixels that the position table is for, so that the table is resized.
"""

import pathlib

import numpy as np
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

SIZES = {
    "image_size": 12,
    "patch_size": 4,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "projection_dim": 6,
}
IMAGES = {"native": (2, 12, 12, 3), "large": (1, 20, 28, 3)}


def tower(activation):
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**SIZES, hidden_act=activation)).eval()


def weights():
    torch.manual_seed(0)
    model = tower("gelu")
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn_like(value)
            scale = "norm" in name or "layrnorm" in name
            value.copy_(1 + 0.3 * noise if scale and "weight" in name else 0.4 * noise)
    return model.state_dict()


def outputs(state, images):
    for activation in ("quick_gelu", "gelu"):
        model = tower(activation)
        model.load_state_dict(state)
        pixels = torch.tensor(images.transpose(0, 3, 1, 2), dtype=torch.float64)
        with torch.no_grad():
            out = model.double()(pixels, interpolate_pos_encoding=True, output_hidden_states=True)
        yield f"embedding/{activation}", out.image_embeds
        for layer in (0, 1, 3):
            yield f"state{layer}/{activation}", out.hidden_states[layer]


def positions(state):
    """The position table as the model resizes it for the large image."""
    model = tower("gelu")
    model.load_state_dict(state)
    embeddings = model.vision_model.embeddings
    _, height, width, _ = IMAGES["large"]
    tokens = torch.zeros(1, 1 + (height // 4) * (width // 4), SIZES["hidden_size"])
    with torch.no_grad():
        return embeddings.double().interpolate_pos_encoding(tokens.double(), height, width)[0]


def main():
    state, rng = weights(), np.random.default_rng(0)
    arrays = {f"weights/{name}": value.numpy() for name, value in state.items()}
    arrays["positions"] = positions(state).numpy().astype(np.float32)
    for name, shape in IMAGES.items():
        images = rng.standard_normal(shape).astype(np.float32)
        arrays[f"{name}/images"] = images
        for key, value in outputs(state, images):
            arrays[f"{name}/{key}"] = value.numpy().astype(np.float32)
    np.savez_compressed(pathlib.Path(__file__).with_name("clip_vision.npz"), **arrays)


if __name__ == "__main__":
    main()
