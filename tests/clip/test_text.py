from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promptmad_jax.clip.config import LEGACY_EOS, ClipTextConfig
from promptmad_jax.clip.text import ClipText, encode_ids
from promptmad_jax.clip.transformer import graph_and_shapes, quick_gelu, random_params
from tests.clip.narrow import TEXT, golden, golden_weights, load, numpy_state, relative

GOLDEN = golden("clip_text")
WEIGHTS = golden_weights("clip_text")


@pytest.mark.parametrize(("activation", "eos_id"), [("quick_gelu", LEGACY_EOS), ("gelu", 39)])
def test_matches_torch_golden(activation, eos_id):
    graph, params = load(replace(TEXT, activation=activation, eos_id=eos_id), WEIGHTS)
    vectors = encode_ids(graph, params, GOLDEN["ids"])
    assert relative(vectors, GOLDEN[f"vectors/{activation}"]) < 1e-5


@pytest.mark.parametrize(("activation", "eos_id"), [("quick_gelu", LEGACY_EOS), ("gelu", 88)])
def test_matches_torch_live(activation, eos_id):
    torch = pytest.importorskip("torch")
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    theirs = CLIPTextConfig(
        vocab_size=91,
        max_position_embeddings=20,
        hidden_size=32,
        intermediate_size=64,
        projection_dim=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        hidden_act=activation,
        eos_token_id=eos_id,
    )
    torch.manual_seed(1)
    model = CLIPTextModelWithProjection(theirs).eval()
    ids = np.random.default_rng(1).integers(0, 88, (5, 20)).astype(np.int32)
    # The largest id, the first 88 and a later 88 stand at three places.
    ids[np.arange(5), [1, 4, 9, 15, 19]] = 88
    ids[:, 17] = 88
    ids[np.arange(5), [3, 0, 12, 2, 18]] = 90
    with torch.no_grad():
        expected = model(torch.tensor(ids, dtype=torch.long)).text_embeds.numpy()
    ours = ClipTextConfig(
        vocabulary=91,
        context=20,
        width=32,
        hidden=64,
        layers=3,
        heads=4,
        projection=24,
        activation=activation,
        eos_id=eos_id,
    )
    graph, params = load(ours, numpy_state(model))
    assert relative(encode_ids(graph, params, ids), expected) < 1e-5


@pytest.mark.parametrize(("eos_id", "expected"), [(LEGACY_EOS, [2, 1]), (38, [1, 3])])
def test_pooling_is_at_the_largest_id_or_at_the_first_end(eos_id, expected):
    tower = ClipText(replace(TEXT, layers=1, eos_id=eos_id), nnx.Rngs(0))
    ids = jnp.array([[5, 38, 39, 38], [7, 39, 1, 38]])
    np.testing.assert_array_equal(tower.end(ids), expected)


def test_without_projection_gives_the_pooled_state():
    bare = {name: value for name, value in WEIGHTS.items() if name != "text_projection.weight"}
    graph, params = load(replace(TEXT, projection=None), bare)
    pooled = encode_ids(graph, params, GOLDEN["ids"])
    assert pooled.shape == (4, 8)
    projected = pooled @ WEIGHTS["text_projection.weight"].T
    assert relative(projected, GOLDEN["vectors/gelu"]) < 1e-5


def test_what_follows_the_end_token_does_not_count():
    graph, params = load(TEXT, WEIGHTS)
    ids = GOLDEN["ids"].copy()
    ids[0, 2:] = 7
    changed = encode_ids(graph, params, ids)
    np.testing.assert_allclose(changed[0], GOLDEN["vectors/gelu"][0], rtol=1e-5, atol=1e-5)
    ids[1, 1] = (ids[1, 1] + 1) % 38
    assert relative(encode_ids(graph, params, ids)[1:2], GOLDEN["vectors/gelu"][1:2]) > 1e-2


def test_quick_gelu_by_hand():
    x = jnp.array([-1.0, 0.0, 2.0])
    expected = [-1 / (1 + np.exp(1.702)), 0, 2 / (1 + np.exp(-3.404))]
    np.testing.assert_allclose(quick_gelu(x), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("width", "heads", "count"), [(512, 8, 63_428_096), (768, 12, 123_650_304)]
)
def test_parameter_count_at_published_size(width, heads, count):
    config = ClipTextConfig(width=width, hidden=4 * width, heads=heads, projection=width)
    _, shapes = graph_and_shapes(ClipText, config)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}


def test_random_params_follow_the_key():
    first, again, other = (random_params(ClipText, TEXT, jax.random.key(s)) for s in (0, 0, 1))
    shapes = graph_and_shapes(ClipText, TEXT)[1]
    assert jax.tree.map(jnp.shape, first) == jax.tree.map(jnp.shape, shapes)
    np.testing.assert_array_equal(first["position_embedding"], again["position_embedding"])
    assert not np.allclose(first["position_embedding"], other["position_embedding"])
