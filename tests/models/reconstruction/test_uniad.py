"""UniAD: the forward pass from its formulas in NumPy, sizes, and what it learns from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.losses.objective import LossConfig, objective
from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.functional import Network, batch_stats
from promptmad_jax.models.reconstruction.encoder import ReconstructorConfig
from promptmad_jax.models.reconstruction.outputs import anomaly_maps
from promptmad_jax.models.reconstruction.pairs import interleave
from promptmad_jax.models.reconstruction.uniad import UniAD
from promptmad_jax.training.reconstruction_step import join, step_rngs
from tests.trees import count_params

GRID, CHANNELS, BATCH = (4, 5), 6, 2
CONFIG = ReconstructorConfig(
    width=8, heads=2, encoder_layers=1, decoder_layers=2, mlp_width=12, neighbor_size=3
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def make(config=CONFIG):
    """A network and random parameters, no bias 0 and no norm 1 among them."""
    network = Network.create(lambda rngs: UniAD(config, CHANNELS, GRID, rngs))
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    leaves = [0.5 * normal(*x.shape, seed=i) for i, x in enumerate(leaves)]
    assert stats == {}
    return network, jax.tree.unflatten(tree, leaves)


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def norm(p, x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]


def mlp(p, x):
    return dense(p["lin2"], np.maximum(dense(p["lin1"], x), 0))


def attention(p, query, key, value, hidden):
    """One image; queries [N, D] do not see the keys where `hidden` [N, N]."""
    query, key, value = (
        np.split(dense(p[name], x), CONFIG.heads, -1)
        for name, x in (("query", query), ("key", key), ("value", value))
    )
    heads = []
    for q, k, v in zip(query, key, value, strict=True):
        weight = np.exp(np.where(hidden, -np.inf, q @ k.T / np.sqrt(q.shape[-1])))
        heads.append(weight / weight.sum(-1, keepdims=True) @ v)
    return dense(p["out"], np.concatenate(heads, -1))


def reference(p, features):
    """UniAD's published formulas for one image [h, w, C], in float64."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), p)
    cells = [(y, x) for y in range(GRID[0]) for x in range(GRID[1])]
    pos = np.stack([np.concatenate([p["column_embed"][x], p["row_embed"][y]]) for y, x in cells])
    hidden = np.array([[abs(a - c) <= 1 and abs(b - d) <= 1 for c, d in cells] for a, b in cells])
    m = dense(p["input_proj"], features.reshape(len(cells), -1))
    for i in range(CONFIG.encoder_layers):
        layer = p["encoder"][f"layer_{i}"]
        m = norm(layer["norm1"], m + attention(layer["attention"], m + pos, m + pos, m, hidden))
        m = norm(layer["norm2"], m + mlp(layer["mlp"], m))
    out = m
    for i in range(CONFIG.decoder_layers):
        layer = p["decoder"][f"layer_{i}"]
        e = layer["query_embed"]
        read = attention(layer["memory_attention"], e + pos, m + pos, m, hidden)
        e = norm(layer["norm1"], e + read)
        read = attention(layer["output_attention"], e + pos, out + pos, out, hidden)
        e = norm(layer["norm2"], e + read)
        out = norm(layer["norm3"], e + mlp(layer["mlp"], e))
    return dense(p["output_proj"], norm(p["final_norm"], out)).reshape(features.shape)


def test_forward_is_the_published_formulas():
    network, params = make()
    features = normal(BATCH, *GRID, CHANNELS)

    @jax.jit
    def predict(params, features):
        model = network.bind(params, {})
        return model.predict(
            Features(features, None, None), model.encode_prompt(features, None), None
        )

    outputs = predict(params, features)
    expected = np.stack([reference(params["reconstructor"], one) for one in features])
    np.testing.assert_allclose(outputs.reconstruction, expected, atol=2e-5)
    maps = anomaly_maps(outputs, features, 8)
    assert set(maps) == {"reconstruction"} and maps["reconstruction"].shape == (BATCH, 8, 8)


@pytest.mark.parametrize(("size", "more"), [(224, 0), (256, 60), (320, 204)])
def test_parameters_at_full_size(size, more):
    grid = (size // 16, size // 16)
    network = Network.create(lambda rngs: UniAD(ReconstructorConfig(), 272, grid, rngs))
    params, _ = jax.eval_shape(network.init, jax.random.key(0))
    positions = 2 * 128 * (grid[0] - 14)
    assert count_params(params) == 7_717_392 + positions + 4 * 256 * more


def test_the_loss_is_the_feature_error_of_the_clean_images():
    network, params = make(
        ReconstructorConfig(**vars(CONFIG) | {"dropout": 0.0, "jitter_probability": 0.0})
    )
    clean, prompt = normal(BATCH, *GRID, CHANNELS), normal(BATCH, *GRID, CHANNELS, seed=1)
    masks = np.ones((2 * BATCH, 8, 8), np.float32)

    def loss(params, pseudo):
        model = network.bind(params, {})
        features = Features(interleave(clean, pseudo), None, None)
        outputs = model.train_forward(features, prompt, None, masks, step_rngs(jax.random.key(0)))
        total, terms = objective(outputs, clean, masks, LossConfig())
        return total, (terms, batch_stats(model))

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (total, (terms, stats)), grads = step(params, np.full_like(clean, np.nan))
    assert set(terms) == {"feature"} and total == terms["feature"] and stats == {}
    assert all(np.isfinite(x).all() and np.abs(x).max() > 0 for x in jax.tree.leaves(grads))
    rebuilt = np.stack([reference(params["reconstructor"], one) for one in clean])
    np.testing.assert_allclose(total, np.square(rebuilt - clean).mean(), rtol=1e-5)


def test_the_compiler_leaves_out_the_pseudo_anomalous_images():
    """In a step with a product of 50 Mflop in the place of the backbone."""
    network, params = make()
    clean = Features(normal(BATCH, *GRID, CHANNELS), None, None)
    masks = np.zeros((2 * BATCH, 8, 8), np.float32)

    def loss(params, images, weight):
        pseudo = Features((images @ weight).reshape(clean.neck.shape), None, None)
        model = network.bind(params, {})
        return model.train_forward(
            join(clean, pseudo), clean.neck, None, masks, step_rngs(jax.random.key(0))
        ).reconstruction.sum()

    features = GRID[0] * GRID[1] * CHANNELS
    shape = lambda *dims: jax.ShapeDtypeStruct(dims, jnp.float32)
    lowered = jax.jit(loss).lower(params, shape(BATCH, 10**5), shape(10**5, features))
    assert lowered.compile().cost_analysis()["flops"] < 5e6
