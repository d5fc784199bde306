"""Figures at fixed thresholds against hand-computed values and scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.metrics.exact import image_sample
from promptmad_jax.evaluation.metrics.ground_truth import GroundTruth
from promptmad_jax.evaluation.metrics.metrics import image_scores
from promptmad_jax.evaluation.metrics.thresholds import THRESHOLD_METRICS, threshold_metrics
from promptmad_jax.evaluation.protocol import Evaluator
from promptmad_jax.reporting.tables import format_table
from promptmad_jax.runtime.errors import UserError
from tests.evaluation.classes import make_class, random_case


def figures(maps, masks, scores, labels, thresholds):
    pixels = GroundTruth(masks, np.arange(len(masks))).pixels(maps)
    return threshold_metrics(pixels, image_sample(scores, labels), thresholds)


@pytest.mark.parametrize("levels", [4, 10**6])
@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.9])
def test_equal_scikit_learn(levels, threshold):
    maps, masks = random_case(levels, levels, images=12)
    scores, labels = image_scores(maps, 3), masks.any((1, 2))
    values, undefined = figures(maps, masks, scores, labels, (threshold, 0.8 * threshold))
    assert undefined == {}
    assert set(values) == set(THRESHOLD_METRICS)
    truth, found = masks.ravel(), maps.ravel() > threshold
    flagged = scores > 0.8 * threshold
    assert flagged.any() and found[truth].any()
    expected = {
        "pixel_iou": sklearn_metrics.jaccard_score(truth, found),
        "pixel_precision": sklearn_metrics.precision_score(truth, found),
        "pixel_recall": sklearn_metrics.recall_score(truth, found),
        "pixel_f1": sklearn_metrics.f1_score(truth, found),
        "pixel_fpr": found[~truth].mean(),
        "image_accuracy": sklearn_metrics.accuracy_score(labels, flagged),
        "image_precision": sklearn_metrics.precision_score(labels, flagged),
        "image_recall": sklearn_metrics.recall_score(labels, flagged),
        "image_f1": sklearn_metrics.f1_score(labels, flagged),
        "image_fpr": flagged[~labels].mean(),
    }
    assert values == pytest.approx(expected, abs=1e-15)


def test_the_threshold_itself_is_normal():
    maps = np.array([[[0.1, 0.5, 0.7, 0.5]]], np.float32)
    masks = np.array([[[False, True, True, False]]])
    # 0.1 is no float32: the threshold is rounded as the map is.
    values, _ = figures(maps, masks, np.array([0.5, 0.2]), np.array([1, 0]), (0.1, 0.5))
    assert (values["pixel_precision"], values["pixel_recall"]) == (2 / 3, 1.0)
    assert values["pixel_fpr"] == 0.5
    assert values["image_recall"] == 0.0
    values, _ = figures(maps, masks, np.array([0.5, 0.2]), np.array([1, 0]), (0.5, 0.4))
    assert (values["pixel_iou"], values["image_recall"]) == (0.5, 1.0)


def test_what_cannot_be_divided_is_undefined():
    maps, masks = random_case(0, 9)
    labels = masks.any((1, 2))
    scores = image_scores(maps, 3)
    values, undefined = figures(maps, masks, scores, labels, (9.0, 9.0))
    assert undefined == {
        "pixel_precision": "no pixel exceeds the threshold",
        "image_precision": "no image exceeds the threshold",
    }
    assert values["pixel_iou"] == values["image_recall"] == values["image_fpr"] == 0.0
    values, undefined = figures(maps[:1], masks[:1], scores[:1], labels[:1], (-1.0, -1.0))
    assert values["image_accuracy"] == 0.0
    assert values["image_fpr"] == values["pixel_fpr"] == 1.0
    assert undefined["pixel_iou"] == "no defective pixel"
    assert undefined["image_f1"] == "no defective image"
    _, undefined = figures(maps[1:2], masks[1:2], scores[1:2], np.array([1]), (-1.0, -1.0))
    assert undefined == {"image_fpr": "no normal image"}


def test_block_of_the_evaluator():
    classes = make_class("tile", 1), make_class("plain", 2, defective=0)
    thresholds = {"tile": (1.0, 0.6, 12), "plain": (2.0, 2.0, 12), "unused": (0.0, 0.0, 1)}
    with Evaluator(
        EvalConfig(), thresholds=thresholds, thresholds_from="from held-out images"
    ) as evaluator:
        for one in classes:
            evaluator.add(one)
        result = evaluator.result()
    block = result["thresholds"]
    assert block["values"]["tile"] == {"pixel": 1.0, "image": 0.6}
    assert set(block["values"]) == {"tile", "plain"}
    assert result["protocol"]["decisions"] == "above thresholds from held-out images"
    tile = classes[0]
    scores = image_scores(tile.maps["final"])
    expected, _ = figures(tile.maps["final"], tile.masks, scores, tile.labels, (1.0, 0.6))
    good = (tile.maps["final"][tile.labels == 0] > 1).mean()
    assert block["classes"]["tile"] == expected | {"pixel_fpr_good": pytest.approx(good)}
    assert block["mean"]["pixel_iou"] == expected["pixel_iou"]
    assert block["defined_classes"]["image_accuracy"] == 2
    text = format_table(result)
    assert "P-IoU" in text and "plain: P-IoU, P-prec" in text and "…" not in text


def test_no_block_without_thresholds_and_none_without_the_class():
    with Evaluator(EvalConfig()) as evaluator:
        evaluator.add(make_class("tile", 1))
        result = evaluator.result()
    assert "thresholds" not in result and "decisions" not in result["protocol"]
    with (
        Evaluator(EvalConfig(), thresholds={"screw": (1.0, 1.0)}) as evaluator,
        pytest.raises(UserError, match="class tile has no thresholds"),
    ):
        evaluator.add(make_class("tile", 1))
