"""Metrics of one class's scores as other code bases define them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from promptmad_jax.evaluation.metrics.blocks import ClassScores
from promptmad_jax.evaluation.metrics.exact import (
    Curve,
    Reasons,
    Sample,
    Values,
    build_curve,
    count_above,
    false_positives,
    image_sample,
    measure,
)
from promptmad_jax.evaluation.metrics.metrics import IMAGE_FIGURES, image_scores, pixel_figures

PRO_LIMIT = 0.3


def pro(scored: ClassScores, count: int) -> tuple[Values, Reasons]:
    """PRO by OneNIP's unused function.

    `count` thresholds rise from the smallest pixel in equal steps to below the largest; pixels
    above them are predicted. Of the points with a false-positive rate below 0.3, the rates are
    stretched to [0, 1] and the mean overlap of the regions is integrated by trapezoids.
    """
    pixels, reason = scored.pixels, scored.pixel_curve.missing()
    if reason is not None:
        return {"pixel_aupro": None}, {"pixel_aupro": reason}
    low, high = pixels.bounds()
    thresholds = low + (high - low) / count * np.arange(count)
    rate = false_positives([pixels], thresholds)[0] / pixels.negative_count
    thresholds, rate = thresholds[rate < PRO_LIMIT], rate[rate < PRO_LIMIT]
    if len(np.unique(rate)) < 2:
        reason = f"no two of {count} thresholds have different false-positive rates below 0.3"
        return {"pixel_aupro": None}, {"pixel_aupro": reason}
    stretched = (rate - rate.min()) / (rate.max() - rate.min())
    area = np.trapezoid(_overlap(pixels, thresholds)[::-1], stretched[::-1])
    return {"pixel_aupro": float(area)}, {}


def _overlap(pixels: Sample, thresholds: np.ndarray) -> np.ndarray:
    """The mean overlap [U] of the regions with the pixels above thresholds [U]."""
    order = np.argsort(-pixels.positives, kind="stable")
    overlap = np.append(0.0, np.cumsum(pixels.weights[order]))
    return overlap[count_above(pixels.positives[order[::-1]], thresholds)[0]] / overlap[-1]


def binned(scored: ClassScores, count: int, limit: float) -> tuple[Values, Reasons]:
    """Pixel metrics of scores in `count` equal bins over the range of the class's pixels."""
    pixels = scored.pixels
    if scored.pixel_curve.missing() is None:
        low, high = pixels.bounds()

        def bins(values: np.ndarray) -> np.ndarray:
            position = (values.astype(np.float64) - low) / ((high - low) or 1.0) * count
            return np.minimum(position.astype(np.int32), count - 1)

        pixels = replace(pixels, negatives=bins(pixels.negatives), positives=bins(pixels.positives))
    return measure(build_curve([pixels]), pixel_figures(limit))


def trapezoid_ap(scored: ClassScores) -> tuple[Values, Reasons]:
    """AP as the area under the precision-recall points joined by straight lines."""
    return scored.measure({"image_ap": precision_recall_area}, {"pixel_ap": precision_recall_area})


def precision_recall_area(curve: Curve) -> float:
    """The trapezoid area below scikit-learn's precision-recall points.

    Between two positives the precision falls at one recall, so each line starts from the last of
    the negatives above it. The first point is (0, 1), or (0, 0) if the highest score is negative.
    """
    after = curve.tp_after / (curve.tp_after + curve.fp_at)
    found = curve.tp_before + curve.fp_above
    before = np.divide(curve.tp_before, found, out=np.ones(len(found)), where=found > 0)
    area = np.sum((curve.tp_after - curve.tp_before) * (before + after) / 2)
    return float(area) / curve.positives


def f1_max_of(scored: ClassScores, count: int) -> tuple[Values, Reasons]:
    """F1-max over `count` evenly spaced thresholds from the smallest to the largest score."""
    images = image_sample(scored.scores, scored.labels)
    return scored.measure(
        {"image_f1max": lambda _: _best_f1(images, count)},
        {"pixel_f1max": lambda _: _best_f1(scored.pixels, count)},
    )


def _best_f1(sample: Sample, count: int) -> float:
    thresholds = np.linspace(*sample.bounds(), count)
    found = count_above(np.sort(sample.positives), thresholds)[1]
    false = false_positives([sample], thresholds)[1]
    return float(np.max(2 * found / (found + false + len(sample.positives))))


def figures_of_scores(
    scored: ClassScores, score: Callable[[np.ndarray], np.ndarray]
) -> tuple[Values, Reasons]:
    """Image metrics of the scores float64 [n] that `score` computes from maps [n, H, W]."""
    scores = scored.truth.images(score(scored.maps))
    return measure(build_curve([image_sample(scores, scored.labels)]), IMAGE_FIGURES)


def plain_max(maps: np.ndarray) -> np.ndarray:
    """The largest pixel of each map."""
    return image_scores(maps, 1)


def mean_top_percent(maps: np.ndarray) -> np.ndarray:
    """The mean of the highest 1 % of the pixels of each map (rounded down, at least one pixel)."""
    count = max(1, maps[0].size // 100) if len(maps) else 1
    highest = [np.sort(values, axis=None)[-count:].astype(np.float64) for values in maps]
    return np.array([values.mean() for values in highest], np.float64)
