"""The forms of the reconstruction models for accelerators, run on a CPU."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.config import for_platform, parse
from promptmad_jax.methods.reconstruction.assembly import make_detector
from promptmad_jax.models.backbone.backbone import build_backbone
from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.layers.attention import Text, attend
from promptmad_jax.runtime.accelerators import attention
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.key_streams import KeyStreams


@pytest.fixture(scope="module")
def config():
    raw = load_config("promptmad_mvtec.py")
    raw.data.image_size = 32
    raw.reconstructor.update(width=16, mlp_width=16, heads=2, encoder_layers=2, decoder_layers=2)
    raw.segmentor.update(width=16, fine_width=8, heads=2)
    raw.diffusion.steps = 0
    return for_platform(parse(raw), "cpu")


def features(channels):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    neck = draw(2, 2, 2, sum(channels))
    return Features(neck, draw(2, 4, 4, channels[2]), draw(2, 8, 8, channels[1]))


def programs(config, platform):
    """Prediction and the gradient of a training pass, functions of the parameters; and these."""
    backbone = build_backbone(config.backbone)
    text = Text(jnp.ones((2, 3, 8)) * jnp.arange(3.0)[None, :, None], jnp.ones((2, 3), bool))
    detector = make_detector(config, backbone, text, platform)
    params, stats = detector.network.init(jax.random.key(0))
    seen, one = features(backbone.channels), jax.tree.map(lambda x: x[:1], text)

    def predict(params):
        model = detector.network.bind(params, stats)
        return model.predict(seen, model.encode_prompt(seen.neck, text), text)

    def loss(params):
        key = jax.random.key(1)
        rngs = KeyStreams(jitter=key, dropout=key, diffusion=key)
        model, mask = detector.network.bind(params, stats), jnp.zeros((2, 32, 32))
        out = model.train_forward(seen, seen.neck[:1], one, mask, rngs)
        return jnp.square(out.reconstruction).mean() + jnp.square(out.coarse_logit).mean()

    return predict, jax.grad(loss), params


def test_bfloat16_changes_little_and_leaves_results_and_gradients_float32(config):
    half = for_platform(dataclasses.replace(config, compute_dtype="auto"), "tpu")
    (exact, _, params), (predict, gradient, _) = programs(config, "cpu"), programs(half, "tpu")
    found = jax.jit(predict)(params)
    kept = jax.tree.leaves((found, jax.eval_shape(gradient, params)))
    assert {leaf.dtype for leaf in kept} == {jnp.dtype("float32")}
    for one, other in zip(*map(jax.tree.leaves, (jax.jit(exact)(params), found)), strict=True):
        assert 0 < np.abs(one - other).max() < 0.03 * np.abs(one).max()


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_in_parts(monkeypatch, heads):
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.normal(size=(6, 5, 2, 4)), jnp.float32) for _ in range(3))
    allowed = jnp.asarray(rng.random((5, 5)) < 0.7)[None, None] | jnp.eye(5, dtype=bool)[None, None]
    monkeypatch.setattr(attention, "_LOGIT_BYTES", 4 * 5 * 5 * heads)  # of 2 heads, 6 images

    def of(attend):
        loss = lambda *inputs: jnp.square(attend(*inputs)).sum()
        return attend(query, key, value), jax.grad(loss, (0, 1, 2))(query, key, value)

    expected = of(lambda *inputs: attend(*inputs, allowed))
    for platform in ("tpu", "cuda"):
        found = of(lambda *inputs, on=platform: attention.fused_attention(*inputs, allowed, on))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), found, expected)
