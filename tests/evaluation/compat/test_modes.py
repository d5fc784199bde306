"""Compatibility modes against scikit-learn and brute force."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from promptmad_jax.evaluation.compat import figures as compat_figures
from promptmad_jax.evaluation.compat.modes import COMPAT_MODES, check_mode, describe_mode
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.metrics import metrics
from promptmad_jax.evaluation.metrics.blocks import score_maps
from promptmad_jax.evaluation.metrics.ground_truth import GroundTruth
from promptmad_jax.evaluation.protocol import Evaluator
from promptmad_jax.reporting.tables import format_table
from tests.evaluation.classes import image_metrics, make_class, random_case, regions_of

LEVELS = pytest.mark.parametrize("levels", [2, 5, 40, 10**6])


def score(maps, masks):
    truth = GroundTruth(masks, np.arange(len(masks)))
    return score_maps(maps, truth, truth.has_defect, pool=3)


def brute_force_pro(maps, masks, count):
    """Threshold by threshold, as OneNIP's evaluation has it."""
    low, high = float(maps.min()), float(maps.max())
    rates, overlaps = [], []
    for step in range(count):
        found = maps.astype(np.float64) > low + (high - low) / count * step
        rates.append(found[~masks].mean())
        overlaps.append(np.mean([found[i][region].mean() for i, region in regions_of(masks)]))
    rates, overlaps = np.array(rates), np.array(overlaps)
    rates, overlaps = rates[rates < 0.3], overlaps[rates < 0.3]
    return sklearn_metrics.auc((rates - rates.min()) / (rates.max() - rates.min()), overlaps)


@pytest.mark.parametrize("count", [20, 200])
@pytest.mark.parametrize("levels", [5, 40, 10**6])
def test_pro_equals_brute_force(levels, count):
    maps, masks = random_case(levels, levels)
    values, undefined = compat_figures.pro(score(maps, masks), count)
    expected = brute_force_pro(maps, masks, count)
    assert values == {"pixel_aupro": pytest.approx(expected, abs=1e-12)}
    assert undefined == {}


def test_pro_leaves_out_a_rate_of_exactly_the_limit():
    maps = np.array([[*range(10), 8.5, 6.5]], np.float32)[None]
    masks = np.array([[False] * 10 + [True] * 2])[None]
    # Thresholds 0 to 8.1 in steps of 0.9; rates 0.1 (8.1) and 0.2 (7.2) are below 0.3 (6.3).
    values, _ = compat_figures.pro(score_maps(maps, GroundTruth(masks, [0]), np.ones(1), 1), 10)
    assert values["pixel_aupro"] == pytest.approx(brute_force_pro(maps, masks, 10), abs=1e-12)
    assert values["pixel_aupro"] == 0.5


def test_pro_of_equal_rates_is_undefined():
    maps, masks = random_case(3, 5)
    values, undefined = compat_figures.pro(score(masks.astype(np.float32), masks), 200)
    assert values == {"pixel_aupro": None}
    assert "no two of 200 thresholds" in undefined["pixel_aupro"]
    values, undefined = compat_figures.pro(score(maps[:1], masks[:1]), 200)
    assert undefined == {"pixel_aupro": "no defective pixel"}


@LEVELS
@pytest.mark.parametrize("count", [3, 50])
def test_bins_equal_scikit_learn_on_binned_scores(levels, count):
    maps, masks = random_case(levels, levels)
    edges = np.linspace(maps.min(), maps.max(), count + 1, dtype=np.float64)
    binned = np.clip(np.digitize(maps.astype(np.float64), edges) - 1, 0, count - 1)
    values, _ = compat_figures.binned(score(maps, masks), count, 0.3)
    truth, scores = masks.ravel(), binned.ravel()
    auroc = sklearn_metrics.roc_auc_score(truth, scores)
    ap = sklearn_metrics.average_precision_score(truth, scores)
    assert values["pixel_auroc"] == pytest.approx(auroc, abs=1e-12)
    assert values["pixel_ap"] == pytest.approx(ap, abs=1e-12)
    assert values == pytest.approx(metrics.pixel_metrics(binned, masks)[0], abs=1e-12)


def test_one_outlier_ruins_bins_and_not_exact_figures():
    maps, masks = random_case(1, 10**6, size=40)
    ruined = maps.copy()
    ruined[0, 0, 0] = 1e4
    exact, after = metrics.pixel_metrics(maps, masks)[0], metrics.pixel_metrics(ruined, masks)[0]
    bins = compat_figures.binned(score(ruined, masks), 50, 0.3)[0]
    assert after["pixel_auroc"] == pytest.approx(exact["pixel_auroc"], abs=1e-3)
    assert bins["pixel_auroc"] == pytest.approx(0.5, abs=1e-3)


def test_equal_scores_fall_into_one_bin():
    _, masks = random_case(0, 4)
    values, _ = compat_figures.binned(score(np.full(masks.shape, 2, np.float32), masks), 50, 0.3)
    assert values["pixel_auroc"] == 0.5


@LEVELS
def test_trapezoid_ap_equals_scikit_learn(levels):
    maps, masks = random_case(levels, levels)
    scored = score(maps, masks)
    values, _ = compat_figures.trapezoid_ap(scored)
    for key, truth, scores in (
        ("pixel_ap", masks.ravel(), maps.ravel()),
        ("image_ap", scored.labels, scored.scores),
    ):
        precision, recall, _ = sklearn_metrics.precision_recall_curve(truth, scores)
        assert values[key] == pytest.approx(sklearn_metrics.auc(recall, precision), abs=1e-12)


@LEVELS
@pytest.mark.parametrize("count", [2, 21, 50])
def test_f1_max_equals_brute_force(levels, count):
    maps, masks = random_case(levels, levels)
    scored = score(maps, masks)
    values, _ = compat_figures.f1_max_of(scored, count)
    for key, truth, scores in (
        ("pixel_f1max", masks.ravel(), maps.ravel().astype(np.float64)),
        ("image_f1max", scored.labels, scored.scores),
    ):
        thresholds = np.linspace(scores.min(), scores.max(), count)
        f1 = [sklearn_metrics.f1_score(truth, scores >= threshold) for threshold in thresholds]
        assert values[key] == pytest.approx(max(f1), abs=1e-12)


def test_scores_of_an_image():
    maps = np.random.default_rng(0).random((3, 20, 30), np.float32)
    assert compat_figures.plain_max(maps).tolist() == maps.max((1, 2)).tolist()
    highest = np.sort(maps.reshape(3, -1))[:, -6:].astype(np.float64)
    np.testing.assert_allclose(compat_figures.mean_top_percent(maps), highest.mean(1), rtol=1e-14)
    tiny = maps[:, :3, :3]
    assert compat_figures.mean_top_percent(tiny).tolist() == tiny.max((1, 2)).tolist()


def test_modes_of_image_scores():
    tile = make_class("tile", 1)
    with Evaluator(EvalConfig(compat=("plain_max", "mean_top_1pct"))) as evaluator:
        evaluator.add(tile)
        compat = evaluator.result()["compat"]
    own = {
        "plain_max": compat_figures.plain_max(tile.maps["final"]),
        "mean_top_1pct": compat_figures.mean_top_percent(tile.maps["final"]),
    }
    for name, scores in own.items():
        expected, _ = image_metrics(scores, tile.labels)
        assert compat[name]["classes"]["tile"] == expected


def test_one_class_only_is_undefined_in_every_mode():
    modes = ("pro_200", "bins_50", "trapezoid_ap", "f1max_21", "plain_max", "mean_top_1pct")
    with Evaluator(EvalConfig(compat=modes)) as evaluator:
        evaluator.add(make_class("plain", 3, defective=0))
        result = evaluator.result()
    for name in modes:
        block = result["compat"][name]
        assert set(block["classes"]["plain"].values()) == {None}
        reasons = set(block["undefined"]["plain"].values())
        assert reasons <= {"no defective image", "no defective pixel"}
        assert result["protocol"]["compat"][name] == describe_mode(name)
        assert f"mean, {name}" in format_table(result)


@pytest.mark.parametrize(
    "name", ["bins", "bins_N", "bins_1", "bins_07", "f1max_", "pro_x", "pro_1000000"]
)
def test_unknown_modes_are_refused(name):
    with pytest.raises(ValueError, match=f"compat mode '{name}' is unknown; known: onenip_fusion"):
        check_mode(name)


def test_known_modes_pass_and_the_missing_one_says_why():
    for name in COMPAT_MODES:
        check_mode(name.replace("_N", "_50"))
    assert describe_mode("bins_50").startswith("pixel scores in 50 equal bins")
    with pytest.raises(ValueError, match="'mask_127' is not available: prepared data sets keep"):
        check_mode("mask_127")
