"""Exact AUROC, AP, F1-max and AUPRO, ties included, without a grid of thresholds.

The negatives are sorted once. Every figure then follows from the false-positive counts at the
distinct positive scores, which two binary searches give. Counts add up over parts of the
negatives, so classes can be pooled, or processes joined, without bringing the pixels together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promptmad_jax.evaluation.regions import region_weights
from promptmad_jax.runtime.errors import UserError

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro")


@dataclass(frozen=True, eq=False)
class Curve:
    """The operating points at the U distinct positive scores u, from the highest to the lowest.

    The curve runs diagonally from (fp_above, tp_before) to (fp_at, tp_after) at each u and flat in
    between; it starts in (0, 0) and ends in (negatives, positives).

    Attributes:
      fp_above, fp_at: int64 [U], negatives > u and >= u.
      tp_before, tp_after: int64 [U], positives > u and >= u.
      overlap_before, overlap_after: float64 [U], the per-region overlap for > u and >= u, averaged
        over the regions. Images have no regions; each positive then weighs the same.
      positives, negatives: how many there are.
    """

    fp_above: np.ndarray
    fp_at: np.ndarray
    tp_before: np.ndarray
    tp_after: np.ndarray
    overlap_before: np.ndarray
    overlap_after: np.ndarray
    positives: int
    negatives: int


def count_false_positives(negatives: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Counts the negatives > u and >= u.

    Args:
      negatives: [N], ascending.
      thresholds: [U], of the same dtype.

    Returns:
      int64 [2, U].
    """
    above = len(negatives) - np.searchsorted(negatives, thresholds, side="right")
    at = len(negatives) - np.searchsorted(negatives, thresholds, side="left")
    return np.stack([above, at]).astype(np.int64)


def build_curve(
    negative_parts: Sequence[np.ndarray], positives: np.ndarray, weights: np.ndarray
) -> Curve:
    """Builds the curve of positives against negatives that lie in one or several sorted parts.

    Args:
      negative_parts: ascending arrays of one dtype, which may be memory-mapped.
      positives: [P], of the same dtype, in an order that does not depend on how the work was
        split, P > 0.
      weights: float64 [P], what each positive adds to the overlap, in any unit.
    """
    order = np.argsort(-positives, kind="stable")
    descending = positives[order]
    last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))
    thresholds = descending[last]
    # Ascending queries walk through the sorted negatives in order, which memory maps need.
    counts = sum(count_false_positives(part, thresholds[::-1]) for part in negative_parts)
    overlap = np.cumsum(weights[order])
    overlap = overlap[last] / overlap[-1]
    tp_after = last.astype(np.int64) + 1
    return Curve(
        fp_above=counts[0, ::-1],
        fp_at=counts[1, ::-1],
        tp_before=np.append(0, tp_after[:-1]),
        tp_after=tp_after,
        overlap_before=np.append(0.0, overlap[:-1]),
        overlap_after=overlap,
        positives=len(positives),
        negatives=sum(len(part) for part in negative_parts),
    )


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


@dataclass(frozen=True, eq=False)
class PixelScores:
    """The pixels of one class, ready for `build_curve`.

    Attributes:
      negatives: float [N], ascending.
      positives: float [P], by image and pixel.
      weights: float64 [P], 1 / area of the region.
    """

    negatives: np.ndarray
    positives: np.ndarray
    weights: np.ndarray


def split_pixels(maps: np.ndarray, masks: np.ndarray) -> PixelScores:
    """Separates the pixels by their masks, [n, H, W] both, and sorts the normal ones."""
    weights, _ = region_weights(masks)
    return PixelScores(np.sort(maps[~masks]), maps[masks], weights)


def missing_class(positives: int, negatives: int, unit: str) -> str | None:
    """Says which side is missing, or None where both are there."""
    if positives and negatives:
        return None
    side = "normal" if positives else "defective"
    return f"there is no {side} {unit}" if positives or negatives else f"there is no {unit}"


def pixel_metrics_of(
    parts: Sequence[PixelScores], limit: float = 0.3
) -> tuple[dict[str, float | None], dict[str, str]]:
    """`pixel_metrics` of several classes' pixels taken together, without joining them."""
    positives = np.concatenate([part.positives for part in parts])
    reason = missing_class(len(positives), sum(len(part.negatives) for part in parts), "pixel")
    if reason:
        return dict.fromkeys(PIXEL_METRICS), dict.fromkeys(PIXEL_METRICS, reason)
    weights = np.concatenate([part.weights for part in parts])
    curve = build_curve([part.negatives for part in parts], positives, weights)
    values = auroc(curve), average_precision(curve), f1_max(curve), aupro(curve, limit)
    return dict(zip(PIXEL_METRICS, values, strict=True)), {}


def pixel_metrics(
    maps: np.ndarray, masks: np.ndarray, filenames: Sequence[str] = (), limit: float = 0.3
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Pixel AUROC, AP, F1-max and AUPRO of one class, exact.

    Args:
      maps: float [n, H, W], higher is more anomalous.
      masks: bool [n, H, W].
      filenames: n names for messages.
      limit: the false-positive rate up to which AUPRO integrates.

    Returns:
      The four values in 0..1, None where the masks hold one class only, and the reasons of these.

    Raises:
      UserError: where a map holds NaN or infinite values.
    """
    maps, masks = _as_float(maps), np.asarray(masks, bool)
    check_finite(maps, filenames)
    return pixel_metrics_of([split_pixels(maps, masks)], limit)


def image_metrics(
    scores: np.ndarray, labels: np.ndarray, filenames: Sequence[str] = ()
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Image AUROC, AP and F1-max, exact.

    Args:
      scores: float [n], higher is more anomalous.
      labels: [n], true or non-zero for defective images.
      filenames: n names for messages.

    Returns:
      As `pixel_metrics`.

    Raises:
      UserError: where a score is NaN or infinite.
    """
    scores, labels = _as_float(scores), np.asarray(labels).astype(bool)
    check_finite(scores, filenames)
    positives, negatives = scores[labels], np.sort(scores[~labels])
    reason = missing_class(len(positives), len(negatives), "image")
    if reason:
        return dict.fromkeys(IMAGE_METRICS), dict.fromkeys(IMAGE_METRICS, reason)
    curve = build_curve([negatives], positives, np.ones(len(positives)))
    values = auroc(curve), average_precision(curve), f1_max(curve)
    return dict(zip(IMAGE_METRICS, values, strict=True)), {}


def image_scores(maps: np.ndarray, pool: int = 16) -> np.ndarray:
    """The largest value of the map after pool x pool averaging with stride 1 and no padding.

    As OneNIP and UniAD score images. Sums are taken by doubling, so that saturated regions of
    different images stay exactly equal.

    Args:
      maps: float [n, H, W].
      pool: width of the window in pixels, 1 for the plain maximum.

    Returns:
      float64 [n].

    Raises:
      UserError: where the window does not fit into the map.
    """
    if not 1 <= pool <= min(maps.shape[1:]):
        raise UserError(
            f"the image score averages over {pool} x {pool} pixels, but the maps are "
            f"{maps.shape[1]} x {maps.shape[2]}; choose a pool between 1 and the map size"
        )
    scores = np.empty(len(maps))
    for index, values in enumerate(maps):
        rows = _window_sums(values.astype(np.float64), pool)
        scores[index] = _window_sums(rows.T, pool).max() / pool**2
    return scores


def _window_sums(rows: np.ndarray, width: int) -> np.ndarray:
    """Sums of `width` neighbouring rows, by doubling."""
    count = len(rows) - width + 1
    total, done, span = np.zeros((count, *rows.shape[1:])), 0, 1
    while done < width:
        if width & span:
            total = total + rows[done : done + count]
            done += span
        rows, span = rows[:-span] + rows[span:], 2 * span
    return total


def _as_float(scores: np.ndarray) -> np.ndarray:
    """Keeps float32 and float64 as they are; both hold the values of the other dtypes."""
    scores = np.asarray(scores)
    return scores if scores.dtype in (np.float32, np.float64) else scores.astype(np.float64)


def check_finite(scores: np.ndarray, filenames: Sequence[str] = (), what: str = "score") -> None:
    """Refuses NaN and infinite values: they have no rank.

    Args:
      scores: [n, ...], one entry an image.
      filenames: n names, or nothing.
      what: the word for the scores in the message.

    Raises:
      UserError: naming the first image concerned.
    """
    bad = ~np.isfinite(scores).reshape(len(scores), -1).all(axis=1)
    if bad.any():
        first = int(np.argmax(bad))
        name = filenames[first] if len(filenames) else f"image {first}"
        raise UserError(
            f"{name}: the {what} is NaN or infinite (so in {bad.sum()} of {len(scores)} images); "
            "the training has probably diverged: evaluate an earlier checkpoint, or train again "
            "with a lower learning rate or in float32"
        )
