"""The exact curves of a class, thinned to what a drawing can show, and the course of training."""

import heapq
import math
from collections.abc import Mapping, Sequence

import numpy as np

from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.metrics.exact import Curve, build_curve, image_sample
from promptmad_jax.evaluation.metrics.ground_truth import GroundTruth

POINTS = 200
# In units of the drawing's side: a quarter of a pixel on a drawing of 250 pixels.
TOLERANCE = 1e-3
_CELLS = 8000

NOT_LOSSES = (
    "step",
    "kind",
    "grad_norm",
    "learning_rate",
    "images_per_s",
    "step_s",
    "data_wait_s",
    "nonfinite_steps",
    "device_memory_gib",
    "device_memory_peak_gib",
)

Points = np.ndarray
Series = tuple[np.ndarray, np.ndarray]


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
    """(recall, precision) as steps, the area below which is the AP."""
    precision = curve.tp_after / (curve.tp_after + curve.fp_at)
    recall = _interleave(curve.tp_before, curve.tp_after) / curve.positives
    return np.stack([recall, np.repeat(precision, 2)], axis=1)


def region_overlap(curve: Curve, limit: float) -> Points:
    """(false-positive rate, per-region overlap) up to `limit`; its area over it is the AUPRO."""
    rate = _interleave(curve.fp_above, curve.fp_at) / curve.negatives
    points = _ends(rate, _interleave(curve.overlap_before, curve.overlap_after))
    inside = points[points[:, 0] <= limit]
    # Just after the limit the curve may rise at once; interpolation takes the value before that.
    after = points[len(inside) : len(inside) + 1]
    if len(after) and after[0, 0] > inside[-1, 0]:
        share = (limit - inside[-1, 0]) / (after[0, 0] - inside[-1, 0])
        inside = np.append(inside, inside[-1:] + share * (after - inside[-1:]), axis=0)
    return inside


def thin(points: Points, count: int = POINTS) -> Points:
    """At most `count` of the points, so that the line through them moves as little as possible.

    Points are added where the line is farthest from the curve (Douglas and Peucker, 1973), in
    units of the curve's own extent, until it is nowhere farther than `TOLERANCE`.
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
    """Queues the stretch between two kept points with the one that lies farthest from its chord."""
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
    """Drops points that share a cell of a fine grid with the one before, never the last."""
    cells = np.rint(points * _CELLS)
    kept = np.append(True, (cells[1:] != cells[:-1]).any(axis=1))
    kept[-1] = True
    return points[kept]


def _interleave(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.stack([before, after], axis=1).ravel()


def _ends(x: np.ndarray, y: np.ndarray) -> Points:
    return np.concatenate([[[0.0, 0.0]], np.stack([x, y], axis=1), [[1.0, 1.0]]])


def training_series(history: Sequence[Mapping]) -> dict[str, dict[str, Series]]:
    """What the rows of metrics.jsonl say of the course of training, chart by chart.

    Returns:
      `losses` (the total first), `learning_rate` and `evaluation` (means over the classes), each
      name -> (steps, values); null values are passed over, single points left out, long series
      averaged.
    """
    train = [row for row in history if row["kind"] == "train"]
    evaluations = [row for row in history if row["kind"] == "eval"]
    losses = sorted({name for row in train for name in row} - set(NOT_LOSSES), key=_total_first)
    metrics = dict.fromkeys(name for row in evaluations for name in row)
    charts = {
        "losses": _series(train, losses),
        "learning_rate": _series(train, ["learning_rate"]),
        "evaluation": _series(evaluations, [name for name in metrics if name not in NOT_LOSSES]),
    }
    return {name: series for name, series in charts.items() if series}


def _total_first(name: str) -> tuple[bool, str]:
    return name != "loss", name


def _series(rows: Sequence[Mapping], names: Sequence[str]) -> dict[str, Series]:
    series = {}
    for name in names:
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        if len(points) > 1:
            steps, values = np.array(points, np.float64).T
            series[name] = _averaged(steps, values)
    return series


def _averaged(steps: np.ndarray, values: np.ndarray) -> Series:
    """Averages neighbours up to a step, so that a long run stays a small drawing."""
    if len(steps) <= POINTS:
        return steps, values
    starts = np.arange(0, len(steps), math.ceil(len(steps) / POINTS))
    sizes = np.diff(np.append(starts, len(steps)))
    return steps[starts + sizes - 1], np.add.reduceat(values, starts) / sizes
