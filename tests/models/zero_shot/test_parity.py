"""DAPO, MultiADS and plain CLIP against torch: stored outputs, and live where torch is installed.

The formulas in torch are tests/goldens/make_dapo.py.
"""

import pathlib
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import traverse_util

from promptmad_jax.clip.config import ClipConfig, ClipTextConfig, ClipVisionConfig
from promptmad_jax.clip.weights.clip import read_canonical
from promptmad_jax.models.zero_shot.config import CLIP_ZERO_SHOT, MULTIADS, DapoConfig
from promptmad_jax.models.zero_shot.detector import FrozenClip, ZeroShotDetector
from promptmad_jax.models.zero_shot.prompts import PromptTokens

GOLDEN = pathlib.Path(__file__).parents[2] / "goldens" / "dapo.npz"
NARROW = {"heads": 2, "projection": 6}
CLIP = ClipConfig(
    ClipTextConfig(**NARROW, width=8, hidden=16, layers=2, vocabulary=24, context=16, eos_id=23),
    ClipVisionConfig(**NARROW, width=12, hidden=24, layers=3, image=12, patch=4),
)
DAPO = DapoConfig(
    image_size=20,
    taps=(1, 3),
    prompts=2,
    prompt_tokens=3,
    text_tokens=2,
    image_tokens=3,
    alpha=0.2,
)
WRITTEN = {"image_size": 20, "temperature": 0.1}
CONFIGS = {
    "dapo": DAPO,
    "compat": replace(DAPO, compat=True),
    "multiads": replace(MULTIADS, **WRITTEN, taps=(1, 3)),
    "plain": replace(CLIP_ZERO_SHOT, **WRITTEN, taps=(3,)),
}
TOLERANCE = 1e-5


def under(arrays, prefix):
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def nested(arrays):
    return traverse_util.unflatten_dict(arrays, sep="/")


def frozen_and_trained(inputs):
    canonical = nested(read_canonical(under(inputs, "weights/"), CLIP, "the test", "openai"))
    return FrozenClip(canonical["text"], canonical["vision"]), nested(under(inputs, "trained/"))


def tokens(inputs, prefix=""):
    shares = None
    if prefix == "written/":
        owner = inputs["written/owner"]
        shares = np.float32(owner[None] == np.arange(4)[:, None])
        shares /= shares.sum(1, keepdims=True)
    return PromptTokens(inputs[f"{prefix}ids"], inputs[f"{prefix}end"], shares)


ON = {name: ZeroShotDetector.create(config, CLIP) for name, config in CONFIGS.items()}


@jax.jit
def learnt(trained, frozen, ours, theirs, images):
    """States with both settings of `compat`; taps, maps and scores."""
    detector = ON["dapo"]
    states = detector.text_states(trained, frozen, ours)
    image = detector.image_states(trained, frozen, images)
    train = detector.train_forward(trained, frozen, ours, image)
    return {
        "states": states,
        "compat/states": ON["compat"].text_states(trained, frozen, theirs),
        "dapo": detector.maps(trained, frozen, states, image)
        | {"image": image.image, "image_logits": train.image_logits}
        | {f"tap{tap}": x for tap, x in zip(DAPO.taps, image.taps, strict=True)}
        | {f"map{tap}": x for tap, x in zip(DAPO.taps, train.maps, strict=True)},
    }


@jax.jit
def written(trained, frozen, texts, images):
    """The two settings with hand-written phrases."""
    states = ON["multiads"].text_states(trained, frozen, texts)
    return {
        "written/states": states,
        "multiads": ON["multiads"].maps(trained, frozen, states, images),
        "plain": ON["plain"].maps({}, frozen, states, images),
    }


def check(actual, expected):
    actual = traverse_util.flatten_dict(actual, sep="/")
    compared = actual.keys() & expected.keys()
    for name in sorted(compared):
        error = np.max(np.abs(actual[name] - expected[name])) / np.max(np.abs(expected[name]))
        assert error < TOLERANCE, f"{name}: {error:.1e}"
    return compared


def compare_all(inputs, expected):
    frozen, trained = frozen_and_trained(inputs)
    texts = tokens(inputs), tokens(inputs, "compat/")
    actual = learnt(trained, frozen, *texts, inputs["images"])
    compared = check(actual, expected)
    trained = {"adapters": trained["adapters"]}
    actual = written(trained, frozen, tokens(inputs, "written/"), inputs["images"])
    assert compared | check(actual, expected) == expected.keys()


def test_matches_the_golden():
    with np.load(GOLDEN) as file:
        arrays = {name: file[name] for name in file.files}
    compare_all(arrays, under(arrays, "out/"))


def test_matches_torch_live():
    pytest.importorskip("torch")
    from tests.goldens import make_dapo

    inputs = make_dapo.draw(7)
    compare_all(inputs, make_dapo.outputs(inputs))
