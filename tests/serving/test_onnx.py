"""The ONNX form of a program, and verdicts from its outputs by NumPy alone."""

import base64
import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.evaluation.fusion import Moments, NormalMaps
from promptmad_jax.evaluation.fusion import final_map as fused
from promptmad_jax.evaluation.metrics.metrics import image_scores
from promptmad_jax.evaluation.novelty import ClassGallery
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving.onnx import postprocess, program


def function(factor, arrays, images, class_ids):
    """Has a choice by platform, and slices that a vmap gathers."""
    own = jax.vmap(lambda k: jax.lax.dynamic_slice_in_dim(arrays["rows"], k, 1)[0])(class_ids)
    choose = lambda x: jax.lax.platform_dependent(x, cpu=lambda x: factor * x, default=lambda x: x)
    maps = jax.jit(choose)(jnp.mean(images, -1)) * own.mean((1, 2))[:, None, None]
    return {"memory": maps}, jax.nn.relu(maps).mean(1)


def test_conversion():
    pytest.importorskip("jax2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    arrays = {"rows": np.arange(24, dtype=np.float16).reshape(3, 4, 2)}
    model = program.convert(functools.partial(function, 1), arrays, 8)
    session = onnxruntime.InferenceSession(model)
    inputs = {"images": np.full((1, 8, 8, 3), 3, np.uint8), "class_ids": np.int32([2])}
    maps, description = session.run(["memory", "description"], inputs)
    assert maps.shape == (1, 8, 8) and (maps == 3 * 19.5).all() and (description == 58.5).all()
    with pytest.raises(UserError, match="with errors of"):
        program.convert(functools.partial(function, 2), arrays, 8)


def test_the_arithmetic_is_that_of_the_package():
    rng = np.random.default_rng(0)
    maps = {name: rng.random((1, 24, 24)).astype(np.float32) for name in ("memory", "coarse")}
    normal = NormalMaps(None, Moments(0.1, 2.0), Moments(0.5, 0.3))
    weights = {"memory": 0.7, "segmentation": 0.3}
    expected = fused(maps, "weighted", 0, [normal], weights)
    got = postprocess.final_map({n: x[0] for n, x in maps.items()}, normal._asdict(), weights)
    np.testing.assert_allclose(got, expected[0], rtol=1e-5, atol=1e-6)
    assert postprocess.image_score(got, 16) == pytest.approx(image_scores(got[None])[0])
    gallery = ClassGallery(rng.random((9, 7)).astype(np.float32))
    description = rng.random(7).astype(np.float32)
    expected = gallery.novelty(description[None])[0]
    assert postprocess.novelty(description, gallery.descriptions) == pytest.approx(expected, 1e-4)


@pytest.mark.parametrize(
    ("limit", "novelty", "expected"),
    [(99.0, None, "normal"), (-99.0, None, "defective"), (-99.0, 1e-6, "unknown")],
)
def test_verdict(limit, novelty, expected):
    rng = np.random.default_rng(0)
    outputs = {"memory": rng.random((24, 24), np.float32), "description": rng.random(7)}
    ignored = np.arange(24 * 24).reshape(24, 24) < 70
    bits = base64.b85encode(zlib.compress(np.packbits(ignored).tobytes())).decode()
    constants = {
        "weights": {"memory": 1.0},
        "normal": {"bolt": [None, None, [0.5, 2.0]]},
        "thresholds": {"bolt": {"image": limit, "novelty": novelty}},
        "ignored": {"bolt": [24, bits]},
        "score_range": {"bolt": [-9.0, 1.0]},
    }
    gallery = rng.random((9, 7))
    found, score, values = postprocess.verdict(outputs, gallery, "bolt", constants, 16)
    assert found == expected and (values[ignored] == -9).all()
    wanted = (outputs["memory"][~ignored] - 0.5) / 2
    np.testing.assert_allclose(values[~ignored], wanted, rtol=1e-6)
    assert score == pytest.approx(image_scores(values[None])[0])
