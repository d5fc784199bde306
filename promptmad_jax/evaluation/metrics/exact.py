"""Exact AUROC, AP, F1-max and AUPRO, ties included, without a grid of thresholds.

The negatives are sorted once. Every metric then follows from the false-positive counts at the
distinct positive scores, which two binary searches give. Counts add up over parts of the negatives,
so that classes are pooled, and processes joined, without bringing their pixels together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptmad_jax.runtime.processes import ALONE, Communicator, sum_counts

Values = dict[str, float | None]
Reasons = dict[str, str]


@dataclass(frozen=True, eq=False)
class Sample:
    """Scores, split by their labels.

    Attributes:
      unit: "pixel" or "image", for messages.
      negatives: float [N], ascending; those of this process, possibly memory-mapped.
      positives: float [P], of the same dtype; those of all processes, in an order that does not
        depend on how the work was split.
      weights: float64 [P], the share of each positive in the overlap, in any unit.
      negative_count: number of negatives of all processes.
      communicator: joins the negatives' counts.
    """

    unit: str
    negatives: np.ndarray
    positives: np.ndarray
    weights: np.ndarray
    negative_count: int
    communicator: Communicator

    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest score of all processes; there must be one."""
        ends = np.concatenate([self.negatives[:1], self.negatives[-1:]])
        every = np.concatenate([*self.communicator.gather(ends), self.positives])
        return float(every.min()), float(every.max())


def image_sample(scores: np.ndarray, labels: np.ndarray) -> Sample:
    """The sample of images, float [n] by labels [n], all of them on every process."""
    labels = np.asarray(labels).astype(bool)
    negatives, positives = np.sort(scores[~labels]), scores[labels]
    weights = np.ones(len(positives))
    return Sample("image", negatives, positives, weights, len(negatives), ALONE)


@dataclass(frozen=True, eq=False)
class Curve:
    """The operating points at the U distinct positive scores u, from the highest to the lowest.

    The curve runs diagonally from (fp_above, tp_before) to (fp_at, tp_after) at each u and flat in
    between; it starts in (0, 0) and ends in (negatives, positives).

    Attributes:
      unit: "pixel" or "image".
      fp_above, fp_at: int64 [U], negatives > u and >= u.
      tp_before, tp_after: int64 [U], positives > u and >= u.
      overlap_before, overlap_after: float64 [U], the per-region overlap for > u and >= u, averaged
        over the regions. Images have no regions: each positive has the same weight.
      positives, negatives: their numbers.
    """

    unit: str
    fp_above: np.ndarray
    fp_at: np.ndarray
    tp_before: np.ndarray
    tp_after: np.ndarray
    overlap_before: np.ndarray
    overlap_after: np.ndarray
    positives: int
    negatives: int

    def missing(self) -> str | None:
        """The reason why nothing can be measured, or None."""
        if self.positives and self.negatives:
            return None
        side = "normal " if self.positives else "defective " if self.negatives else ""
        return f"no {side}{self.unit}"


def count_above(ascending: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Counts int64 [2, U] of the scores > u and >= u at thresholds u [U]."""
    above = len(ascending) - np.searchsorted(ascending, thresholds, side="right")
    at = len(ascending) - np.searchsorted(ascending, thresholds, side="left")
    return np.stack([above, at]).astype(np.int64)


def false_positives(samples: Sequence[Sample], thresholds: np.ndarray) -> np.ndarray:
    """Counts int64 [2, U] of the negatives of all samples and processes, > u and >= u."""
    # Ascending thresholds read the sorted negatives in order, which memory maps need.
    own = sum(count_above(sample.negatives, thresholds) for sample in samples)
    return sum_counts(samples[0].communicator, own)


def build_curve(samples: Sequence[Sample]) -> Curve:
    """Builds the curve of one or several samples taken together, over all processes."""
    positives = np.concatenate([sample.positives for sample in samples])
    order = np.argsort(-positives, kind="stable")
    descending = positives[order]
    last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True)[: len(positives)])
    counts = false_positives(samples, descending[last][::-1])[:, ::-1]
    overlap = np.cumsum(np.concatenate([sample.weights for sample in samples])[order])
    overlap = overlap[last] / overlap[-1:]
    tp_after = last.astype(np.int64) + 1
    return Curve(
        unit=samples[0].unit,
        fp_above=counts[0],
        fp_at=counts[1],
        tp_before=np.append(0, tp_after)[:-1],
        tp_after=tp_after,
        overlap_before=np.append(0.0, overlap)[:-1],
        overlap_after=overlap,
        positives=len(positives),
        negatives=sum(sample.negative_count for sample in samples),
    )


Figures = Mapping[str, Callable[[Curve], float]]


def measure(curve: Curve, figures: Figures) -> tuple[Values, Reasons]:
    """Computes the named metrics of a curve; all None, with the reason, if a side is missing."""
    reason = curve.missing()
    if reason is not None:
        return dict.fromkeys(figures), dict.fromkeys(figures, reason)
    return {name: figure(curve) for name, figure in figures.items()}, {}


def auroc(curve: Curve) -> float:
    """Area under the ROC curve: P(positive > negative) + P(equal) / 2, summed in integers."""
    diagonal = (curve.fp_at - curve.fp_above) * (curve.tp_before + curve.tp_after)
    next_fp = np.append(curve.fp_above[1:], curve.negatives)
    flat = 2 * (next_fp - curve.fp_at) * curve.tp_after
    return int(diagonal.sum() + flat.sum()) / (2 * curve.positives * curve.negatives)


def average_precision(curve: Curve) -> float:
    """Step-wise average precision, sum of (R_i - R_{i-1}) P_i, as scikit-learn defines it."""
    precision = curve.tp_after / (curve.tp_after + curve.fp_at)
    return float(np.sum((curve.tp_after - curve.tp_before) * precision) / curve.positives)


def f1_max(curve: Curve) -> float:
    """The largest F1 = 2 TP / (2 TP + FP + FN) over all thresholds."""
    return float(np.max(2 * curve.tp_after / (curve.tp_after + curve.fp_at + curve.positives)))


def aupro(curve: Curve, limit: float = 0.3) -> float:
    """Area under the per-region overlap over the false-positive rate in [0, limit], over limit.

    The curve is interpolated linearly at the limit (the MVTec reference).
    """
    rate = np.stack([curve.fp_above, curve.fp_at], axis=1).ravel() / curve.negatives
    overlap = np.stack([curve.overlap_before, curve.overlap_after], axis=1).ravel()
    rate = np.concatenate([[0.0], rate, [1.0]])
    overlap = np.concatenate([[0.0], overlap, [1.0]])
    inside = int(np.searchsorted(rate, limit, side="right"))
    if inside < len(rate):
        share = (limit - rate[inside - 1]) / (rate[inside] - rate[inside - 1])
        end = overlap[inside - 1] + share * (overlap[inside] - overlap[inside - 1])
        rate = np.append(rate[:inside], limit)
        overlap = np.append(overlap[:inside], end)
    return float(np.trapezoid(overlap, rate) / limit)
