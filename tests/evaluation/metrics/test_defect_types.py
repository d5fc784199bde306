"""Figures of types against scikit-learn, by batches and by processes, and what is undefined."""

import json
import tempfile
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    f1_score,
    roc_auc_score,
)

from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.metrics import type_scores
from promptmad_jax.evaluation.metrics.defect_types import METRICS, DefectTypeEvaluator
from promptmad_jax.evaluation.protocol import Evaluator
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.processes import ALONE
from tests.evaluation.classes import image_metrics, make_class
from tests.evaluation.threads import run_processes

TYPES = ("hole", "scratch", "dent")


def case(seed, levels, states=4, images=3, size=10, unknown=False):
    """Scores float32 with at most `levels` values a state, and masks with all states."""
    rng = np.random.default_rng(seed)
    masks = rng.choice(states, (images, size, size), p=[0.7, *[0.3 / (states - 1)] * (states - 1)])
    masks.flat[:states] = range(states)
    right = np.eye(states)[masks]
    scores = np.floor((rng.random(right.shape) + 0.4 * right) * levels) / levels
    if unknown:
        masks[rng.random(masks.shape) < 0.2] = 255
        masks.flat[:states] = range(states)
    return scores.astype(np.float32), masks.astype(np.uint8)


def batched(*args, **kwargs):
    scores, masks = case(*args, **kwargs)
    return [scores], masks


def reference(scores, masks):
    """The metrics of each state by scikit-learn."""
    kept = masks.ravel() != 255
    truth, flat = masks.ravel()[kept], scores.reshape(-1, scores.shape[-1])[kept]
    present = [k for k in range(flat.shape[1]) if (truth == k).any()]
    one_f1 = f1_score(truth, flat.argmax(1), labels=present, average=None)
    return {
        k: (
            roc_auc_score(truth == k, flat[:, k]),
            average_precision_score(truth == k, flat[:, k]),
            one_f1[place],
        )
        for place, k in enumerate(present)
    }


def assert_same(one, wanted, names):
    for k, name in enumerate(("normal", *names)):
        values = tuple(one["states"][name].values())
        if k in wanted:
            np.testing.assert_allclose(values, wanted[k], rtol=1e-12, err_msg=name)
        else:
            assert values == (None, None, None), name
    table = np.asarray(list(wanted.values()))
    figures = [one["figures"][key] for key in METRICS]
    np.testing.assert_allclose(figures[:3], table.mean(0), rtol=1e-12)
    types = [wanted[k] for k in wanted if k]
    np.testing.assert_allclose(figures[3:], np.mean(types, 0), rtol=1e-12)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    levels=st.integers(1, 40),
    states=st.integers(2, 6),
    unknown=st.booleans(),
    chunk=st.sampled_from([1, 7, 1 << 20]),
)
def test_as_scikit_learn_with_heavy_ties(seed, levels, states, unknown, chunk):
    scores, masks = case(seed, levels, states, unknown=unknown)
    names = tuple(f"type {k}" for k in range(1, states))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type_scores, "CHUNK", chunk)
        one = DefectTypeEvaluator("filtered").add("cup", [scores], masks, names)
    assert_same(one, reference(scores, masks), names)
    kept = masks != 255
    wanted = confusion_matrix(masks[kept], scores.argmax(-1)[kept], labels=range(states))
    assert one["confusion"] == {"names": ["normal", *names], "pixels": wanted.tolist()}
    assert one["pixels_of_unknown_type"] == (~kept).sum()


def test_macro_is_that_of_scikit_learn():
    scores, masks = case(3, 1000)
    probabilities = scores / scores.sum(-1, keepdims=True, dtype=np.float64)
    one = DefectTypeEvaluator("filtered").add("cup", [probabilities], masks, TYPES)["figures"]
    truth, flat = masks.ravel(), probabilities.reshape(-1, 4)
    auroc = roc_auc_score(truth, flat, multi_class="ovr", average="macro")
    assert one["auroc"] == pytest.approx(auroc, rel=1e-12)
    f1 = f1_score(truth, flat.argmax(1), average="macro")
    assert one["f1"] == pytest.approx(f1, rel=1e-12)


def test_by_hand():
    masks = np.asarray([[[0, 0, 1, 2]]])
    scores = np.asarray([[[[3, 1, 0], [1, 1, 1], [2, 2, 0], [0, 2, 1]]]], np.float32)
    one = DefectTypeEvaluator("filtered").add("cup", [scores], masks, ("hole", "dent"))
    assert one["confusion"]["pixels"] == [[2, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert one["states"]["normal"] == {"auroc": 3 / 4, "ap": (1 + 2 / 3) / 2, "f1": 4 / 5}
    assert one["states"]["hole"] == {"auroc": (1 + 1 + 1 / 2) / 3, "ap": 1 / 2, "f1": 0}
    assert one["states"]["dent"] == {"auroc": (1 + 1 + 1 / 2) / 3, "ap": 1 / 2, "f1": 0}


def test_types_and_products_together():
    evaluator = DefectTypeEvaluator("filtered")
    cup = evaluator.add("cup", *batched(1, 9, 3), ("hole", "dent"))
    pot = evaluator.add("pot", *batched(2, 9, 3), ("dent", "scratch"))
    result = evaluator.result()
    assert result["vocabulary"] == "filtered"
    assert result["classes"] == {"cup": cup["figures"], "pot": pot["figures"]}
    assert result["products"] == {"cup": cup, "pot": pot}
    for key in METRICS:
        mean = (cup["figures"][key] + pot["figures"][key]) / 2
        assert result["mean"][key] == pytest.approx(mean)
    dent = [one["states"]["dent"]["ap"] for one in (cup, pot)]
    assert result["types"]["dent"]["ap"] == pytest.approx(np.mean(dent))
    assert result["types"]["dent"]["defined_classes"] == 2
    assert result["types"]["hole"] == {**cup["states"]["hole"], "defined_classes": 1}
    confusion = np.asarray(result["confusion"]["pixels"])
    assert result["confusion"]["names"] == ["normal", "hole", "dent", "scratch"]
    assert confusion.sum() == 600
    first, second = (np.asarray(one["confusion"]["pixels"]) for one in (cup, pot))
    assert confusion[0, 0] == first[0, 0] + second[0, 0]
    assert confusion[0, 2] == first[0, 2] + second[0, 1]
    assert confusion[1].tolist() == [*first[1], 0]
    json.dumps(result, allow_nan=False)


def test_what_is_absent_is_undefined_with_a_reason():
    """All types are asked for, as in the unfiltered vocabulary; the product has one of them."""
    scores, masks = case(4, 20)
    masks[masks > 1] = 0
    evaluator = DefectTypeEvaluator("unfiltered")
    one = evaluator.add("cup", [scores], masks, TYPES)
    assert one["undefined"] == {
        name: f"no pixel of the state {name}" for name in ("scratch", "dent")
    }
    assert_same(one, reference(scores, masks), TYPES)
    good = evaluator.add("pot", [scores], np.zeros_like(masks), TYPES)
    assert set(good["undefined"].values()) == {"no pixel of a known defect type"}
    assert set(good["figures"].values()) == {None}
    whole = evaluator.add("lid", [scores], np.where(masks == 5, 255, 2).astype(np.uint8), TYPES)
    assert set(whole["undefined"].values()) == {"all pixels of known type are of one type"}
    result = evaluator.result()
    assert result["defined_classes"] == dict.fromkeys(METRICS, 1)
    assert result["mean"] == one["figures"]
    assert set(result["undefined"]) == {"pot", "lid"}
    assert result["undefined"]["pot"]["types_f1"] == "no pixel of a known defect type"
    assert result["types"]["scratch"] == {
        **dict.fromkeys(("auroc", "ap", "f1")),
        "defined_classes": 0,
    }


def test_batches_give_the_same_and_leave_nothing(tmp_path, monkeypatch):
    scores, masks = case(5, 12, images=11, unknown=True)
    whole = DefectTypeEvaluator("filtered").add("cup", [scores], masks, TYPES)
    seen = []

    def batches():
        for start in (0, 4, 8):
            seen.append(len(list(tmp_path.rglob("*.raw"))))
            yield scores[start : start + 4]

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    evaluator = DefectTypeEvaluator("filtered")
    assert evaluator.add("cup", batches(), masks, TYPES) == whole
    assert seen == [0, 1, 2]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_the_states(count):
    def evaluate(communicator):
        evaluator = DefectTypeEvaluator("filtered", communicator=communicator)
        for name, seed in (("cup", 6), ("pot", 7)):
            evaluator.add(name, *batched(seed, 15, unknown=True), TYPES)
        return evaluator.result()

    alone = evaluate(ALONE)
    assert None not in alone["mean"].values()
    for result in run_processes(count, evaluate):
        assert result == alone


def test_memory_is_that_of_few_columns():
    """Of 12 states in batches, a few columns are in memory at once, not all."""
    states, images, size = 12, 16, 64
    rng = np.random.default_rng(0)
    masks = rng.integers(0, states, (images, size, size), np.uint8)
    column = images * size * size * 4

    def batches():
        for _ in range(images):
            yield rng.random((1, size, size, states), np.float32)

    names = tuple(f"type {k}" for k in range(1, states))
    tracemalloc.start()
    DefectTypeEvaluator("unfiltered").add("cup", batches(), masks, names)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * column


def test_mistakes():
    scores, masks = case(8, 5)
    evaluator = DefectTypeEvaluator("filtered")
    bad = scores.copy()
    bad[1, 2, 3, 0] = np.nan
    with pytest.raises(UserError, match="cup, image 1: the score is NaN"):
        evaluator.add("cup", [bad], masks, TYPES)
    for wrong, names, message in (
        ([scores[:, :5]], TYPES, "scores"),
        ([scores[:2]], TYPES, "2 images have scores, 3 masks"),
        ([scores], TYPES[:2], "ids beyond"),
        ([scores], ("hole", "hole", "dent"), "repeat"),
        ([scores], ("hole", "normal", "dent"), "repeat"),
        ([scores, scores], TYPES, "scores"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluator.add("cup", wrong, masks, names)
    evaluator.add("cup", [scores], masks, TYPES)
    with pytest.raises(UserError, match="evaluated already"):
        evaluator.add("cup", [scores], masks, TYPES)


def with_scores(one: ClassMaps, scores: np.ndarray) -> ClassMaps:
    return ClassMaps(**{**vars(one), "image_scores": scores})


def test_image_scores_of_the_models_own():
    one = make_class("screw", 0)
    scores = np.random.default_rng(0).random(len(one.labels))
    given = with_scores(one, scores)
    with Evaluator(EvalConfig(compat=())) as evaluator:
        evaluator.add(given)
        result = evaluator.result()
    with Evaluator(EvalConfig(compat=())) as evaluator:
        evaluator.add(one)
        plain = evaluator.result()
    wanted, _ = image_metrics(scores, one.labels)
    found, before = result["classes"]["screw"], plain["classes"]["screw"]
    assert {key: found[key] for key in wanted} == wanted
    assert found["image_auroc"] != before["image_auroc"]
    assert {k: v for k, v in found.items() if k.startswith("pixel")} == {
        k: v for k, v in before.items() if k.startswith("pixel")
    }
    assert result["maps"] == plain["maps"]
    assert result["protocol"]["image_score"].startswith("the model's own")
    assert plain["protocol"]["image_score"].startswith("maximum of the")
    np.testing.assert_array_equal(given.share(1, 2).image_scores, scores[1::2])
    with pytest.raises(ValueError, match="do not fit"):
        with_scores(one, scores[:-1])
    with (
        Evaluator(EvalConfig(compat=())) as evaluator,
        pytest.raises(UserError, match="image score"),
    ):
        evaluator.add(with_scores(one, np.where(scores < 0.5, np.nan, scores)))
