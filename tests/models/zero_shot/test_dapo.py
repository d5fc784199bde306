"""Zero-shot detectors on narrow towers without training: what depends on what."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from promptmad_jax.clip.config import ClipConfig, ClipTextConfig, ClipVisionConfig
from promptmad_jax.losses.defect_types import DefectTypeLossConfig, defect_type_objective
from promptmad_jax.models.zero_shot.config import CLIP_ZERO_SHOT, DAPO, MULTIADS
from promptmad_jax.models.zero_shot.detector import ZeroShotDetector
from promptmad_jax.models.zero_shot.loading import random_detector
from promptmad_jax.models.zero_shot.similarity import pair, states_for
from promptmad_jax.runtime.errors import UserError

NARROW = {"heads": 2, "projection": 8, "layers": 2}
CLIP = ClipConfig(
    ClipTextConfig(**NARROW, width=16, hidden=32, context=112),
    ClipVisionConfig(**NARROW, width=16, hidden=32, image=12, patch=4),
)
SMALL = {"image_size": 16, "taps": (1, 2)}
CONFIG = replace(DAPO, **SMALL, prompts=2, prompt_tokens=2, text_tokens=2, image_tokens=2)
DEFECTS = ("scratch", "missing cap")
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def loaded():
    return random_detector(CONFIG, CLIP, 0)


@pytest.fixture(scope="module")
def trainable(loaded):
    return jax.jit(loaded.detector.init)(jax.random.key(1), loaded.frozen)


@pytest.fixture(scope="module")
def states_of(loaded, trainable):
    compiled = jax.jit(loaded.detector.text_states)

    def states(*defects):
        tokens = loaded.detector.tokens(loaded.tokenizer, defects)
        return compiled(trainable, loaded.frozen, tokens)

    return states


@pytest.fixture(scope="module")
def image(loaded, trainable):
    return jax.jit(loaded.detector.image_states)(trainable, loaded.frozen, IMAGES)


@pytest.fixture(scope="module")
def maps(loaded, trainable, image):
    compiled = jax.jit(loaded.detector.maps)
    return lambda states, allowed=None: compiled(trainable, loaded.frozen, states, image, allowed)


def test_a_state_depends_on_its_own_words_alone(states_of):
    first, other = states_of(*DEFECTS), states_of("missing cap", "dent")
    np.testing.assert_allclose(jnp.linalg.norm(first, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(other[0], first[0], atol=1e-6)
    np.testing.assert_allclose(other[1], first[2], atol=1e-6)
    assert np.abs(other[2] - first[1]).max() > 1e-3


def test_new_words_change_their_own_map_and_no_order_matters(states_of, maps):
    states = states_of(*DEFECTS)
    out, turned = maps(states), maps(states[jnp.asarray([0, 2, 1])])
    np.testing.assert_allclose(turned["types"], out["types"][..., [0, 2, 1]], atol=1e-6)
    np.testing.assert_allclose(turned["anomaly"], out["anomaly"], atol=1e-6)
    np.testing.assert_allclose(turned["image_score"], out["image_score"], atol=1e-6)
    renamed = maps(states_of("scratch", "rust"))
    assert np.abs(renamed["types"][..., 2] - out["types"][..., 2]).max() > 1e-3


def test_maps_are_probabilities(states_of, maps):
    out = maps(states_of(*DEFECTS))
    np.testing.assert_allclose(out["types"].sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(out["anomaly"], 1 - out["types"][..., 0], atol=1e-6)
    np.testing.assert_allclose(out["image_types"].sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(out["type_scores"], out["types"].max((1, 2)))
    assert ((out["image_score"] > 0) & (out["image_score"] < 1)).all()


def test_states_that_are_not_allowed_are_as_if_absent(states_of, maps):
    """Also for padding with zeros, and with another vocabulary for each image."""
    states = states_of(*DEFECTS)
    padded = jnp.concatenate([states, jnp.zeros((1, 8))])
    allowed = np.asarray([[True, True, False, False], [True, True, True, False]])
    out = maps(padded, allowed)
    whole, first = maps(states), maps(states[:2])
    for name, expected, width in (("0", first, 2), ("1", whole, 3)):
        row = int(name)
        np.testing.assert_allclose(
            out["types"][row, ..., :width], expected["types"][row], atol=1e-6
        )
        assert not out["types"][row, ..., width:].any()
        assert not out["image_types"][row, width:].any()
        for key in ("anomaly", "image_score"):
            np.testing.assert_allclose(out[key][row], expected[key][row], atol=1e-6)


def test_each_image_may_have_states_of_its_own(states_of, maps):
    states, others = states_of(*DEFECTS), states_of("dent", "rust")
    out = maps(jnp.stack([states, others]))
    np.testing.assert_allclose(out["types"][0], maps(states)["types"][0], atol=1e-6)
    np.testing.assert_allclose(out["types"][1], maps(others)["types"][1], atol=1e-6)


def test_pair_is_the_normal_state_and_the_mean_of_the_others():
    states = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    vectors = pair(states_for(states, None, 1)).vectors[0]
    mean = np.asarray([0.6, 1.8]) / np.hypot(0.6, 1.8)
    np.testing.assert_allclose(vectors, [[1, 0], mean], rtol=1e-6)
    only = pair(states_for(states, jnp.asarray([True, False, True]), 1)).vectors[0]
    np.testing.assert_allclose(only[1], states[2], rtol=1e-6)


def test_a_step_down_the_gradient_of_everything_lowers_the_loss(loaded, trainable):
    tokens = loaded.detector.tokens(loaded.tokenizer, DEFECTS)
    types = np.zeros((2, 16, 16), np.int32)
    types[0, 4:12, 4:12] = 2

    @jax.jit
    @jax.value_and_grad
    def loss(trainable):
        outputs = loaded.detector.train_forward(trainable, loaded.frozen, tokens, IMAGES)
        anomalous = jnp.asarray([True, False])
        return defect_type_objective(outputs, types, anomalous, DefectTypeLossConfig())[0]

    before, gradient = loss(trainable)
    assert all(jnp.abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(gradient))
    # The normal and the abnormal prompts, and both deep ones, are all used.
    assert set(gradient) == {"text", "vision", "adapters"}
    size = 0.01 / optax.tree.norm(gradient)
    after, _ = loss(jax.tree.map(lambda p, g: p - size * g, trainable, gradient))
    assert after < before - 1e-3


def test_without_deep_image_prompts_images_may_pass_the_tower_once(loaded):
    config = replace(CONFIG, image_tokens=0, remat=True)
    detector = ZeroShotDetector.create(config, loaded.detector.clip)
    trainable = jax.jit(detector.init)(jax.random.key(1), loaded.frozen)
    assert set(trainable) == {"text", "adapters"}
    tokens = detector.tokens(loaded.tokenizer, DEFECTS)

    @jax.jit
    def both(trainable, frozen):
        kept = detector.image_states({}, frozen, IMAGES)
        states = detector.text_states(trainable, frozen, tokens)
        return (
            detector.train_forward(trainable, frozen, tokens, IMAGES),
            detector.train_forward(trainable, frozen, states, kept),
        )

    for direct, cached in zip(*map(jax.tree.leaves, both(trainable, loaded.frozen)), strict=True):
        np.testing.assert_allclose(cached, direct, atol=1e-6)


def test_half_precision_is_near_and_gives_float32(loaded, trainable, states_of, maps):
    half = ZeroShotDetector.create(replace(CONFIG, dtype="bfloat16"), CLIP)
    states = states_of(*DEFECTS)
    run = jax.jit(lambda *args: (half.maps(*args), half.image_states(*args[:2], args[3]).taps[0]))
    out, tap = run(trainable, loaded.frozen, states, IMAGES)
    assert {leaf.dtype for leaf in out.values()} == {np.dtype("float32")}
    exact = maps(states)
    error = np.abs(out["anomaly"] - exact["anomaly"]).max()
    assert 1e-6 < error < 0.1
    assert tap.dtype == jnp.bfloat16


def test_plain_clip_trains_nothing_and_tells_words_apart(loaded):
    config = replace(CLIP_ZERO_SHOT, image_size=16, taps=(2,))
    detector = ZeroShotDetector.create(config, loaded.detector.clip)
    assert detector.init(jax.random.key(0), loaded.frozen) == {}

    @jax.jit
    def run(frozen, tokens, images):
        states = detector.text_states({}, frozen, tokens)
        return states, detector.maps({}, frozen, states, images)

    tokens = detector.tokens(loaded.tokenizer, DEFECTS, "gear")
    states, out = run(loaded.frozen, tokens, IMAGES)
    assert states.shape == (3, 8)
    assert np.ptp(out["anomaly"]) > 1e-3
    assert np.abs(out["types"][..., 1] - out["types"][..., 2]).max() > 1e-3


def test_is_hashable_by_what_it_is_made_of(loaded):
    again = ZeroShotDetector.create(CONFIG, loaded.detector.clip)
    assert again == loaded.detector and hash(again) == hash(loaded.detector)
    assert again != ZeroShotDetector.create(replace(CONFIG, alpha=0.5), CLIP)


def test_images_of_another_size_are_refused(loaded, trainable):
    with pytest.raises(ValueError, match="must be 16 x 16 x 3"):
        loaded.detector.image_states(trainable, loaded.frozen, IMAGES[:, :8])


@pytest.mark.parametrize(
    ("config", "clip", "message"),
    [
        (CONFIG, ClipConfig(CLIP.text), "lacks one"),
        (CONFIG, ClipConfig(replace(CLIP.text, projection=4), CLIP.vision), "8 and 4 channels"),
        (CONFIG, ClipConfig(replace(CLIP.text, projection=None), CLIP.vision), "8 and None"),
        (MULTIADS, CLIP, "the image tower has 2 layers"),
        (replace(CONFIG, image_size=3), CLIP, "a patch has 4 pixels"),
    ],
)
def test_a_clip_that_does_not_fit(config, clip, message):
    with pytest.raises(UserError, match=message):
        ZeroShotDetector.create(config, clip)
