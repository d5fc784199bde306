"""The curves on the page: their areas are the metrics, and thinning does not move them."""

import numpy as np
import pytest

from promptmad_jax.evaluation.metrics.exact import build_curve, image_sample
from promptmad_jax.evaluation.metrics.ground_truth import GroundTruth
from promptmad_jax.evaluation.metrics.metrics import image_scores, pixel_metrics
from promptmad_jax.reporting.chart_data import training_series
from promptmad_jax.reporting.curves import (
    POINTS,
    TOLERANCE,
    class_curves,
    precision_recall,
    region_overlap,
    roc,
    thin,
)
from promptmad_jax.reporting.pages.charts import number, ticks, training_chart
from tests.evaluation.classes import image_metrics
from tests.reporting.report_cases import HISTORY, make_class


def area(points):
    return np.trapezoid(points[:, 1], points[:, 0])


@pytest.mark.parametrize("levels", [3, 50, None])
def test_areas_of_image_curves(levels):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [40, 25])
    scores = rng.normal(size=65) + labels
    if levels:
        scores = np.round(scores * levels / 6)
    curve = build_curve([image_sample(scores, labels)])
    figures, _ = image_metrics(scores, labels)
    assert area(roc(curve)) == pytest.approx(figures["image_auroc"], abs=1e-12)
    assert area(precision_recall(curve)) == pytest.approx(figures["image_ap"], abs=1e-12)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("levels", [4, None])
def test_area_of_the_overlap_curve(limit, levels):
    class_maps = make_class(keys=())
    maps = class_maps.maps["final"]
    if levels:
        maps = np.round(maps * levels)
    curve = build_curve([GroundTruth(class_maps.masks, class_maps.indices).pixels(maps)])
    points = region_overlap(curve, limit)
    assert points[-1, 0] == pytest.approx(limit)
    figures, _ = pixel_metrics(maps, class_maps.masks, limit=limit)
    assert area(points) / limit == pytest.approx(figures["pixel_aupro"], abs=1e-12)


def test_curves_of_a_class():
    class_maps = make_class()
    scores = image_scores(class_maps.maps["final"])
    curves = class_curves(class_maps, scores, 0.3)
    assert set(curves) == {"pixel_roc", "pixel_pr", "pixel_pro", "image_roc", "image_pr"}
    for points in curves.values():
        assert 2 <= len(points) <= POINTS
        assert (np.diff(points[:, 0]) >= 0).all()
    normal = make_class("normal", defective=0)
    assert class_curves(normal, image_scores(normal.maps["final"]), 0.3) == {}


def distance(points, lines):
    """The distance of each point [n, 2] to the polyline."""
    start, step = lines[:-1], np.diff(lines, axis=0)
    length = (step**2).sum(1)
    along = ((points[:, None] - start) * step).sum(-1) / np.where(length > 0, length, 1)
    nearest = start + np.clip(along, 0, 1)[..., None] * step
    return np.hypot(*(points[:, None] - nearest).transpose(2, 0, 1)).min(1)


def test_thinning_does_not_move_a_curve():
    x = np.sort(np.random.default_rng(0).random(50_000))
    curve = np.stack([x, x**0.05], axis=1)
    thinned = thin(curve)
    assert len(thinned) < POINTS
    assert (thinned[[0, -1]] == curve[[0, -1]]).all()
    assert distance(curve[::50], thinned).max() < 2 * TOLERANCE


def test_thinning_of_noise_keeps_its_corners():
    rng = np.random.default_rng(0)
    steps = np.cumsum(rng.exponential(size=(2000, 2)), axis=0)
    assert len(thin(steps / steps[-1], 50)) == 50
    corner = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert thin(corner).tolist() == corner.tolist()
    dense = np.concatenate([np.linspace(corner[i], corner[i + 1], 100) for i in (0, 1)])
    assert thin(dense).tolist() == corner.tolist()


def test_training_series():
    charts = training_series(HISTORY)
    assert list(charts) == ["losses", "learning_rate", "evaluation"]
    assert list(charts["losses"]) == ["loss", "dice"]
    assert charts["losses"]["loss"][0][[0, -1]].tolist() == [10, 1000]
    broken = [{"step": 1, "kind": "train", "loss": None}, *HISTORY[:2]]
    assert len(training_series(broken)["losses"]["loss"][0]) == 2
    assert training_series(HISTORY[:1]) == {}


def test_long_runs_are_averaged():
    history = [{"step": s, "kind": "train", "loss": float(s % 2)} for s in range(1, 2401)]
    steps, values = training_series(history)["losses"]["loss"]
    assert len(steps) == POINTS
    assert steps[-1] == 2400
    assert set(values) == {0.5}


@pytest.mark.parametrize("values", [[3.0, 3.0], [100.0, 0.1], [-1.0, 1.0], [0.0, 0.0]])
def test_training_curve_lies_inside_the_drawing(values):
    chart = training_chart("losses", {"loss": (np.array([1.0, 9.0]), np.array(values))})
    points = np.array([pair.split(",") for pair in chart.marks[0].path[1:].split("L")], float)
    assert (points >= 0).all() and (points <= [chart.frame.width, chart.frame.height]).all()
    assert (chart.y_name == "logarithmic") == (values[0] == 100.0)


def test_ticks_are_round_and_never_alone():
    assert ticks(0.18, 1.8, 3) == [0.5, 1.0, 1.5]
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    for high in np.geomspace(1e-5, 1e5, 400):
        for target in (3, 5):
            assert abs(len(ticks(0.1 * high, high, target)) - target) <= 2


def test_numbers_of_ticks_tell_them_apart():
    assert [number(x) for x in (5e-5, 1e-4, 1.5e-4, 2e-4)] == ["5e-5", "1e-4", "1.5e-4", "2e-4"]
    assert [number(x) for x in (0, 0.25, -1.5, 1200, 3e6)] == ["0", "0.25", "-1.5", "1,200", "3e6"]
