from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promptmad_jax.clip.config import ClipVisionConfig
from promptmad_jax.clip.transformer import graph_and_shapes, run_layers
from promptmad_jax.clip.vision import IMAGE_MEAN, IMAGE_STD, ClipVision
from tests.clip.narrow import (
    VISION,
    encode_images,
    golden,
    golden_weights,
    load,
    numpy_state,
    relative,
)

GOLDEN = golden("clip_vision")
WEIGHTS = golden_weights("clip_vision")
TAPS = (0, 1, 3)


@pytest.mark.parametrize("size", ["native", "large"])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_matches_torch_golden(activation, size):
    graph, params = load(replace(VISION, activation=activation), WEIGHTS)
    embedding, states = encode_images(graph, params, GOLDEN[f"{size}/images"], TAPS)
    assert relative(embedding, GOLDEN[f"{size}/embedding/{activation}"]) < 1e-5
    for tap, state in zip(TAPS, states, strict=True):
        assert relative(state, GOLDEN[f"{size}/state{tap}/{activation}"]) < 1e-5


@pytest.mark.parametrize(("height", "width"), [(28, 28), (21, 42), (20, 38)])
def test_matches_torch_live(height, width):
    torch = pytest.importorskip("torch")
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    theirs = CLIPVisionConfig(
        image_size=28,
        patch_size=7,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        projection_dim=24,
    )
    torch.manual_seed(1)
    model = CLIPVisionModelWithProjection(theirs).eval()
    images = np.random.default_rng(1).standard_normal((2, height, width, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(
            torch.tensor(images.transpose(0, 3, 1, 2)),
            interpolate_pos_encoding=True,
            output_hidden_states=True,
        )
    ours = ClipVisionConfig(
        image=28, patch=7, width=32, hidden=48, layers=4, heads=4, projection=24
    )
    graph, params = load(ours, numpy_state(model))
    embedding, states = encode_images(graph, params, images, (1, 2, 3, 4))
    assert relative(embedding, expected.image_embeds.numpy()) < 1e-5
    for state, hidden in zip(states, expected.hidden_states[1:], strict=True):
        assert relative(state, hidden.numpy()) < 1e-5


def test_taps_come_in_the_order_asked_for():
    graph, params = load(VISION, WEIGHTS)
    images = GOLDEN["native/images"]
    _, (last, first) = encode_images(graph, params, images, (3, 1))
    assert relative(last, GOLDEN["native/state3/gelu"]) < 1e-5
    assert relative(first, GOLDEN["native/state1/gelu"]) < 1e-5
    assert encode_images(graph, params, images).states == ()
    with pytest.raises(IndexError):
        encode_images(graph, params, images, (4,))


def test_without_projection_gives_the_normalised_class_token():
    bare = {name: value for name, value in WEIGHTS.items() if name != "visual_projection.weight"}
    graph, params = load(replace(VISION, projection=None), bare)
    pooled = encode_images(graph, params, GOLDEN["native/images"]).embedding
    assert pooled.shape == (2, 16)
    projected = pooled @ WEIGHTS["visual_projection.weight"].T
    assert relative(projected, GOLDEN["native/embedding/gelu"]) < 1e-5


def test_steps_take_inserted_tokens():
    """Tokens behind the class token change the result unless nothing may attend to them."""
    graph, params = load(VISION, WEIGHTS)
    tower = nnx.merge(graph, params)
    x = tower.embed(GOLDEN["native/images"])
    inserted = jnp.concatenate([x[:, :1], jnp.ones((2, 4, 16)), x[:, 1:]], axis=1)
    allowed = jnp.ones((14, 14), bool).at[:, 1:5].set(False)
    hidden, _ = run_layers(tower.layers, inserted, allowed)
    seen, _ = run_layers(tower.layers, inserted)
    assert relative(tower.pool(hidden), GOLDEN["native/embedding/gelu"]) < 1e-5
    assert relative(tower.pool(seen), GOLDEN["native/embedding/gelu"]) > 1e-2


LARGE = ClipVisionConfig(
    image=336, patch=14, width=1024, hidden=4096, heads=16, layers=24, projection=768
)


@pytest.mark.parametrize(
    ("config", "count"),
    [(ClipVisionConfig(), 87_849_216), (ClipVisionConfig(patch=16), 86_192_640)],
    ids=["B/32", "B/16"],
)
def test_parameter_count_at_published_size(config, count):
    _, shapes = graph_and_shapes(ClipVision, config)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_large_tower_on_images_larger_than_its_own():
    graph, shapes = graph_and_shapes(ClipVision, LARGE)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 304_293_888
    images = jax.ShapeDtypeStruct((2, 518, 518, 3), jnp.float32)
    out = jax.eval_shape(lambda p, x: encode_images(graph, p, x, (6, 24)), shapes, images)
    assert out.embedding.shape == (2, 768)
    assert [state.shape for state in out.states] == [(2, 1 + 37 * 37, 1024)] * 2


def test_image_constants_are_those_of_transformers():
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    assert tuple(OPENAI_CLIP_MEAN) == IMAGE_MEAN
    assert tuple(OPENAI_CLIP_STD) == IMAGE_STD
