"""Zero-shot detectors on CLIP ViT-L/14-336 at 518 pixels: shapes and counts, without weights."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.clip.config import PUBLISHED
from promptmad_jax.clip.text import ClipText
from promptmad_jax.clip.transformer import graph_and_shapes
from promptmad_jax.clip.vision import ClipVision
from promptmad_jax.models.zero_shot.config import CLIP_ZERO_SHOT, DAPO, MULTIADS, DapoConfig
from promptmad_jax.models.zero_shot.detector import FrozenClip, ZeroShotDetector
from promptmad_jax.models.zero_shot.parameters import TableMoments, draw_parameters
from promptmad_jax.models.zero_shot.prompts import PromptTokens
from tests.trees import count_params

LARGE = PUBLISHED["openai/clip-vit-large-patch14-336"]
FROZEN = FrozenClip(
    graph_and_shapes(ClipText, LARGE.text)[1], graph_and_shapes(ClipVision, LARGE.vision)[1]
)
IMAGES = jax.ShapeDtypeStruct((2, 518, 518, 3), jnp.uint8)


def trainable_shapes(config):
    detector = ZeroShotDetector.create(config, LARGE)
    return jax.eval_shape(detector.init, jax.random.key(0), FROZEN)


def test_dapo_trains_3_360_768_parameters():
    shapes = trainable_shapes(DAPO)
    counts = {name: count_params(part) for name, part in shapes.items()}
    assert counts == {"adapters": 3_148_800, "vision": 98_304, "text": 113_664}
    assert count_params(shapes) == 3_360_768
    assert jax.tree.map(jnp.shape, shapes["text"]) == {
        "normal": (10, 5, 768),
        "abnormal": (10, 5, 768),
        "deep": (12, 4, 768),
    }
    assert jax.tree.map(jnp.shape, shapes["vision"]) == {"deep": (24, 4, 1024)}
    adapter = {"kernel": (1024, 768), "bias": (768,)}
    assert jax.tree.map(jnp.shape, shapes["adapters"]) == dict.fromkeys(
        ("6", "12", "18", "24"), adapter
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}


@pytest.mark.parametrize(("config", "count"), [(MULTIADS, 3_148_800), (CLIP_ZERO_SHOT, 0)])
def test_the_siblings_train_adapters_only_or_nothing(config, count):
    assert count_params(trainable_shapes(config)) == count


def traced(function, *args):
    """The shapes of all values in a function, and those of its results."""
    jaxpr, results = jax.make_jaxpr(function, return_shape=True)(*args)
    return (
        {out.aval.shape for equation in jaxpr.jaxpr.eqns for out in equation.outvars},
        jax.tree.map(jnp.shape, results),
    )


@pytest.mark.parametrize(
    ("compat", "length", "inside"), [(False, 16, (30, 20, 768)), (True, 77, (30, 81, 768))]
)
def test_text_states_and_their_sequences(compat, length, inside):
    config = DapoConfig(compat=compat)
    detector = ZeroShotDetector.create(config, LARGE)
    ids = np.zeros((3, length), np.int32)
    tokens = PromptTokens(ids, np.full(3, 10, np.int32), None)
    run = lambda trainable, frozen: detector.text_states(trainable, frozen, tokens)
    values, states = traced(run, trainable_shapes(config), FROZEN)
    assert states == (3, 768)
    assert inside in values


def test_maps_at_full_size():
    detector = ZeroShotDetector.create(DAPO, LARGE)
    states = jax.ShapeDtypeStruct((8, 768), jnp.float32)

    def run(trainable, frozen, states, images):
        image = detector.image_states(trainable, frozen, images)
        maps = detector.maps(trainable, frozen, states, image)
        return image, maps, detector.train_forward(trainable, frozen, states, image)

    values, (image, maps, train) = traced(run, trainable_shapes(DAPO), FROZEN, states, IMAGES)
    assert (2, 1 + 4 + 37 * 37, 1024) in values
    assert image == (((2, 37 * 37, 1024),) * 4, (2, 768))
    assert maps == {
        "anomaly": (2, 518, 518),
        "types": (2, 518, 518, 8),
        "image_score": (2,),
        "image_types": (2, 8),
        "type_scores": (2, 8),
    }
    assert train == ((2, 2), ((2, 518, 518, 8),) * 4)


def test_first_values():
    clip = replace(LARGE, vision=replace(LARGE.vision, projection=16))
    table = np.random.default_rng(0).normal(3.0, 0.5, (100, 768)) * np.linspace(1, 2, 768)
    config = replace(DAPO, taps=(6, 12))
    moments = TableMoments(*(x.astype(np.float32) for x in (table.mean(0), table.std(0))))
    draw = jax.jit(lambda key: draw_parameters(key, config, clip, moments))
    params = jax.device_get(draw(jax.random.key(0)))
    deep = params["vision"]["deep"]
    np.testing.assert_allclose([deep.min(), deep.max()], [-0.061, 0.061], atol=1e-4)
    for tokens in params["text"].values():
        drawn = tokens.reshape(-1, 768)
        np.testing.assert_allclose(drawn.mean(0), table.mean(0), atol=1)
        np.testing.assert_allclose((drawn / table.mean(0)).std(), 1 / 6, rtol=0.05)
    assert not np.allclose(params["text"]["normal"], params["text"]["abnormal"])
    kernel = params["adapters"]["6"]["kernel"]
    np.testing.assert_allclose([kernel.min(), kernel.max()], [-1 / 32, 1 / 32], rtol=1e-3)
    assert not np.allclose(kernel, params["adapters"]["12"]["kernel"])
