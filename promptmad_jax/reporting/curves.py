"""ROC, PR and PRO curves of a class, exact but for points that a drawing cannot show."""

import heapq

import numpy as np

from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.metrics.exact import Curve, build_curve, image_sample
from promptmad_jax.evaluation.metrics.ground_truth import GroundTruth

POINTS = 200
# In units of the drawing's side: a quarter of a pixel on a drawing of 250 pixels.
TOLERANCE = 1e-3
_CELLS = 8000

Points = np.ndarray  # [P, 2]


def class_curves(class_maps: ClassMaps, scores: np.ndarray, limit: float) -> dict[str, Points]:
    """The curves of the final map of a class.

    Args:
      scores: its image scores, [n].
      limit: the false-positive rate where the PRO curve is cut.

    Returns:
      `pixel_roc`, `pixel_pr`, `pixel_pro`, `image_roc` and `image_pr`, float64 [P, 2] with
      P <= `POINTS`; a curve that is undefined is left out.
    """
    truth = GroundTruth(class_maps.masks, np.arange(len(class_maps.masks)))
    pixel = build_curve([truth.pixels(class_maps.maps["final"])])
    image = build_curve([image_sample(scores, class_maps.labels)])
    curves = {}
    if pixel.missing() is None:
        curves |= {"pixel_roc": roc(pixel), "pixel_pr": precision_recall(pixel)}
        curves["pixel_pro"] = region_overlap(pixel, limit)
    if image.missing() is None:
        curves |= {"image_roc": roc(image), "image_pr": precision_recall(image)}
    return {name: thin(points) for name, points in curves.items()}


def roc(curve: Curve) -> Points:
    """(false-positive rate, true-positive rate) from (0, 0) to (1, 1); its area is the AUROC."""
    rate = _interleave(curve.fp_above, curve.fp_at) / curve.negatives
    return _ends(rate, _interleave(curve.tp_before, curve.tp_after) / curve.positives)


def precision_recall(curve: Curve) -> Points:
    """(recall, precision) as steps; the area below them is the AP."""
    precision = curve.tp_after / (curve.tp_after + curve.fp_at)
    recall = _interleave(curve.tp_before, curve.tp_after) / curve.positives
    return np.stack([recall, np.repeat(precision, 2)], axis=1)


def region_overlap(curve: Curve, limit: float) -> Points:
    """(false-positive rate, per-region overlap) up to `limit`; its area / `limit` is the AUPRO."""
    rate = _interleave(curve.fp_above, curve.fp_at) / curve.negatives
    points = _ends(rate, _interleave(curve.overlap_before, curve.overlap_after))
    inside = points[points[:, 0] <= limit]
    # The curve may jump right after the limit; interpolation takes the value before the jump.
    after = points[len(inside) : len(inside) + 1]
    if len(after) and after[0, 0] > inside[-1, 0]:
        share = (limit - inside[-1, 0]) / (after[0, 0] - inside[-1, 0])
        inside = np.append(inside, inside[-1:] + share * (after - inside[-1:]), axis=0)
    return inside


def thin(points: Points, count: int = POINTS) -> Points:
    """Keeps at most `count` of the points, moving the line through them as little as possible.

    Points are added where the line is farthest from the curve (Douglas and Peucker, 1973), in
    units of the curve's own extent, until no point is farther away than `TOLERANCE`.
    """
    points = _one_per_cell(points)
    extent = np.ptp(points, axis=0)
    scaled = points / np.where(extent > 0, extent, 1.0)
    kept, waiting = {0, len(points) - 1}, []
    _push(waiting, scaled, 0, len(points) - 1)
    while waiting and len(kept) < count:
        distance, first, middle, last = heapq.heappop(waiting)
        if -distance < TOLERANCE:
            break
        kept.add(middle)
        _push(waiting, scaled, first, middle)
        _push(waiting, scaled, middle, last)
    return points[sorted(kept)]


def _push(waiting: list, points: Points, first: int, last: int) -> None:
    """Queues the points between two kept ones by the largest distance to their chord."""
    if last - first < 2:
        return
    start, chord = points[first], points[last] - points[first]
    inner = points[first + 1 : last] - start
    length = float(np.hypot(*chord))
    if length:
        away = np.abs(inner[:, 0] * chord[1] - inner[:, 1] * chord[0]) / length
    else:
        away = np.hypot(*inner.T)
    middle = int(np.argmax(away))
    heapq.heappush(waiting, (-float(away[middle]), first, first + 1 + middle, last))


def _one_per_cell(points: Points) -> Points:
    """Drops points in the same cell of a fine grid as the point before, but never the last."""
    cells = np.rint(points * _CELLS)
    kept = np.append(True, (cells[1:] != cells[:-1]).any(axis=1))
    kept[-1] = True
    return points[kept]


def _interleave(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.stack([before, after], axis=1).ravel()


def _ends(x: np.ndarray, y: np.ndarray) -> Points:
    return np.concatenate([[[0.0, 0.0]], np.stack([x, y], axis=1), [[1.0, 1.0]]])
