"""CLIP at its published sizes against torch: `pytest -m full tests/clip`.

Random weights, one tower at a time; ViT-L/14 takes 4 GB of memory and a minute or more.
"""

import jax
import numpy as np
import pytest

from promptmad_jax.clip.config import ClipTextConfig, ClipVisionConfig
from promptmad_jax.clip.text import encode_ids
from tests.clip.narrow import encode_images, load, numpy_state, relative

pytestmark = pytest.mark.full
LARGE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
OUR_LARGE = ClipVisionConfig(
    image=336, patch=14, width=1024, hidden=4096, heads=16, layers=24, projection=768
)


def spread(model):
    """Noise on what transformers initialises with zeros and ones: biases and norms."""
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 1:
                value.add_(0.1 * torch.randn_like(value))
    return model.eval()


@pytest.mark.parametrize("eos_id", [2, 49407])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ClipTextConfig(), {}),
        (
            ClipTextConfig(width=768, hidden=3072, heads=12, projection=768),
            {
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_attention_heads": 12,
                "projection_dim": 768,
            },
        ),
    ],
    ids=["ViT-B/32", "ViT-L/14"],
)
def test_text_tower(ours, theirs, eos_id):
    torch = pytest.importorskip("torch")
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(0)
    config = CLIPTextConfig(**theirs, eos_token_id=eos_id)
    model = spread(CLIPTextModelWithProjection(config))
    ids = np.random.default_rng(0).integers(0, 49406, (4, 77)).astype(np.int32)
    for row, end in zip(ids, (3, 17, 40, 76), strict=True):
        row[end:] = 49407
    with torch.no_grad():
        expected = model(torch.tensor(ids, dtype=torch.long)).text_embeds.numpy()
    graph, params = load(type(ours)(**{**vars(ours), "eos_id": eos_id}), numpy_state(model))
    error = relative(encode_ids(graph, params, ids), expected)
    print(f"\ntext {ours.width}: {error:.1e} of the largest value")
    assert error < 1e-5


@pytest.mark.parametrize(
    ("ours", "theirs", "size", "taps"),
    [
        (ClipVisionConfig(), {}, 224, (1, 6, 12)),
        (OUR_LARGE, LARGE, 336, (6, 12, 18, 24)),
        (OUR_LARGE, LARGE, 518, (6, 12, 18, 24)),
    ],
    ids=["ViT-B/32", "ViT-L/14-336", "ViT-L/14-336 at 518"],
)
def test_vision_tower(ours, theirs, size, taps):
    torch = pytest.importorskip("torch")
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    model = spread(CLIPVisionModelWithProjection(CLIPVisionConfig(**theirs)))
    images = np.random.default_rng(0).standard_normal((1, size, size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(
            torch.tensor(images.transpose(0, 3, 1, 2)),
            interpolate_pos_encoding=True,
            output_hidden_states=True,
        )
    graph, params = load(ours, numpy_state(model))
    params = jax.tree.map(jax.numpy.asarray, params)
    embedding, states = encode_images(graph, params, images, taps)
    errors = [relative(embedding, expected.image_embeds.numpy())]
    for tap, state in zip(taps, states, strict=True):
        errors.append(relative(state, expected.hidden_states[tap].numpy()))
    print(f"\nvision {ours.width} at {size}:", *(f"{error:.1e}" for error in errors))
    assert max(errors) < 1e-5
