"""Intervals of the differences between runs: over the test images, or over seeds."""

import math
from collections.abc import Mapping

import numpy as np
from scipy import stats

from promptmad_jax.evaluation.image_scores import ImageScore
from promptmad_jax.evaluation.proportion import CONFIDENCE

DRAWS = 1000
METRICS = ("image_auroc", "image_ap", "image_f1max")

Scores = Mapping[tuple[str, str], ImageScore]
Interval = tuple[float, float]
Intervals = dict[str, Interval]  # by metric


def image_intervals(reference: Scores, run: Scores) -> tuple[Intervals, dict[str, Intervals]]:
    """95 % intervals of the differences of the image metrics, in percentage points.

    Test images are drawn anew `DRAWS` times, the same for both runs, as many normal and defective
    ones of each class as it has (a paired, stratified percentile bootstrap; Efron and Tibshirani,
    "An Introduction to the Bootstrap", 1993).

    Returns:
      Those of the means over the classes, and of each class that has images of both kinds.
    """
    by_class: dict[str, list[tuple[str, str]]] = {}
    for key in reference:
        by_class.setdefault(key[0], []).append(key)
    draws, rng = {}, np.random.default_rng(0)
    for name, keys in by_class.items():
        labels = np.array([reference[key].label for key in keys], bool)
        if labels.any() and not labels.all():
            weights = _draw(labels, rng)
            own, other = (
                _metrics(np.array([scores[key].score for key in keys]), labels, weights)
                for scores in (run, reference)
            )
            draws[name] = 100 * (own - other)
    if not draws:
        return {}, {}
    means = _intervals(np.mean(list(draws.values()), axis=0))
    return means, {name: _intervals(differences) for name, differences in draws.items()}


def seed_interval(own: Mapping, other: Mapping) -> Interval | None:
    """95 % interval of the difference of two means over seeds, in percentage points (Welch, 1947).

    Args:
      own, other: statistics as of `evaluation.spread.spread`.

    Returns:
      None where a group has fewer than two defined values.
    """
    if None in (own["std"], other["std"]):
        return None
    counts = own["defined"], other["defined"]
    errors = [side["std"] ** 2 / n for side, n in zip((own, other), counts, strict=True)]
    difference, variance = own["mean"] - other["mean"], sum(errors)
    if not variance:
        return 100 * difference, 100 * difference
    freedom = variance**2 / sum(e**2 / (n - 1) for e, n in zip(errors, counts, strict=True))
    width = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * math.sqrt(variance)
    return 100 * (difference - width), 100 * (difference + width)


def _draw(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The times that each draw takes each image, int [DRAWS, n]."""
    weights = np.empty((DRAWS, len(labels)), int)
    for members in (labels, ~labels):
        count = members.sum()
        weights[:, members] = rng.multinomial(count, np.full(count, 1 / count), DRAWS)
    return weights


def _metrics(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`METRICS` of each draw, float64 [DRAWS, 3], as defined in `evaluation.metrics`."""
    order = np.argsort(-scores)
    scores, labels, weights = scores[order], labels[order], weights[:, order]
    last = np.append(scores[1:] != scores[:-1], True)  # of those with the same score
    true, false = (np.cumsum(weights * kind, axis=1)[:, last] for kind in (labels, ~labels))
    new_true, new_false = (np.diff(counts, prepend=0) for counts in (true, false))
    positives, negatives = true[:, -1], false[:, -1]
    return np.stack(
        [
            (new_false * (true - new_true / 2)).sum(1) / (positives * negatives),
            (new_true * true / np.maximum(true + false, 1)).sum(1) / positives,
            (2 * true / (true + false + positives[:, None])).max(1),
        ],
        axis=1,
    )


def _intervals(differences: np.ndarray) -> Intervals:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(differences, [tail, 1 - tail], axis=0).tolist()
    return dict(zip(METRICS, zip(low, high, strict=True), strict=True))
