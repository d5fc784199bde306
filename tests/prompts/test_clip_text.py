import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from promptmad_jax.prompts.clip_config import ClipTextConfig
from promptmad_jax.prompts.clip_text import encode_ids, graph_and_shapes, quick_gelu, random_params
from promptmad_jax.weights.clip import convert_text, text_tensors


def load(config, tensors):
    graph, shapes = graph_and_shapes(config)
    flat = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(shapes, sep="/").items()}
    params = convert_text(text_tensors(tensors), flat, "the test")
    return graph, traverse_util.unflatten_dict(params, sep="/")


def relative(actual, expected):
    return np.max(np.linalg.norm(actual - expected, axis=-1) / np.linalg.norm(expected, axis=-1))


def replaced(config, **changes):
    return type(config)(**{**vars(config), **changes})


@pytest.mark.parametrize(("activation", "eos_id"), [("quick_gelu", 2), ("gelu", 39)])
def test_matches_torch_golden(golden, weights, narrow, activation, eos_id):
    graph, params = load(replaced(narrow, activation=activation, eos_id=eos_id), weights)
    vectors = encode_ids(graph, params, golden["ids"])
    assert relative(vectors, golden[f"vectors/{activation}"]) < 1e-5


@pytest.mark.parametrize(("activation", "eos_id"), [("quick_gelu", 2), ("gelu", 90)])
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
    ids = np.random.default_rng(1).integers(0, 89, (5, 20)).astype(np.int32)
    ids[np.arange(5), [1, 4, 9, 15, 19]] = 90
    with torch.no_grad():
        expected = model(torch.tensor(ids, dtype=torch.long)).text_embeds.numpy()
    ours = ClipTextConfig(91, 20, 32, 64, 3, 4, 24, activation, 1e-5, eos_id)
    graph, params = load(ours, {name: value.numpy() for name, value in model.state_dict().items()})
    assert relative(encode_ids(graph, params, ids), expected) < 1e-5


def test_without_projection_gives_the_pooled_state(golden, weights, narrow):
    bare = {name: value for name, value in weights.items() if name != "text_projection.weight"}
    graph, params = load(replaced(narrow, projection=None), bare)
    pooled = encode_ids(graph, params, golden["ids"])
    assert pooled.shape == (4, 8)
    projected = pooled @ weights["text_projection.weight"].T
    assert relative(projected, golden["vectors/gelu"]) < 1e-5


def test_what_follows_the_end_token_does_not_count(golden, weights, narrow):
    graph, params = load(narrow, weights)
    ids = golden["ids"].copy()
    ids[0, 2:] = 7
    changed = encode_ids(graph, params, ids)
    np.testing.assert_allclose(changed[0], golden["vectors/gelu"][0], rtol=1e-5, atol=1e-5)
    ids[1, 1] = (ids[1, 1] + 1) % 38
    assert relative(encode_ids(graph, params, ids)[1:2], golden["vectors/gelu"][1:2]) > 1e-2


def test_quick_gelu_by_hand():
    x = jnp.array([-1.0, 0.0, 2.0])
    expected = [-1 / (1 + np.exp(1.702)), 0, 2 / (1 + np.exp(-3.404))]
    np.testing.assert_allclose(quick_gelu(x), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("width", "heads", "count"), [(512, 8, 63_428_096), (768, 12, 123_650_304)]
)
def test_parameter_count_at_published_size(width, heads, count):
    config = ClipTextConfig(width=width, hidden=4 * width, heads=heads, projection=width)
    _, shapes = graph_and_shapes(config)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}


def test_random_params_follow_the_key(narrow):
    first, again, other = (random_params(narrow, jax.random.key(seed)) for seed in (0, 0, 1))
    shapes = graph_and_shapes(narrow)[1]
    assert jax.tree.map(jnp.shape, first) == jax.tree.map(jnp.shape, shapes)
    np.testing.assert_array_equal(first["position_embedding"], again["position_embedding"])
    assert not np.allclose(first["position_embedding"], other["position_embedding"])
