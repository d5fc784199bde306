"""How fast, how exact and how steady the figures of a full test set are."""

import itertools
import time
from collections.abc import Callable, Iterator

import numpy as np

from promptmad_jax.benchmarking.rows import Row, timed_row
from promptmad_jax.benchmarking.synthetic_maps import DrawnClass, draw_classes
from promptmad_jax.benchmarking.timing import Timing
from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.compat.figures import binned, f1_max_of, pro
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.metrics.blocks import METRICS, Block, ClassScores, score_maps
from promptmad_jax.evaluation.metrics.exact import Reasons, Values
from promptmad_jax.evaluation.metrics.ground_truth import GroundTruth
from promptmad_jax.evaluation.metrics.metrics import PIXEL_METRICS, check_finite
from promptmad_jax.evaluation.metrics.regions import EIGHT_NEIGHBOURS
from promptmad_jax.evaluation.protocol import Evaluator

_POOL, _LIMIT = 16, 0.3
_OUTLIER = 20

Counts = dict[str, tuple[int, int]]


def engine(counts: Counts, size: int, repeats: int) -> Iterator[Row]:
    """All figures of each class from its maps and masks: `METRICS`, and AUPRO up to 0.05."""
    seconds = []
    for _ in range(repeats):
        block, total = Block(), 0.0
        for drawn in draw_classes(counts, size):
            begin = time.perf_counter()
            block.add(drawn.name, *_score(drawn).figures(_LIMIT))
            total += time.perf_counter() - begin
        seconds.append(total)
    row = _row("metrics", counts, size, seconds)
    yield row | {"metrics": list(METRICS), "mean": block.result()["mean"]}


def evaluator(counts: Counts, size: int) -> Iterator[Row]:
    """A whole evaluation, as a run makes it: besides, the maps wait on disk to be pooled."""
    total = 0.0
    with Evaluator(EvalConfig(compat=())) as evaluation:
        for drawn in draw_classes(counts, size):
            one = _class_maps(drawn)
            begin = time.perf_counter()
            evaluation.add(one)
            total += time.perf_counter() - begin
        begin = time.perf_counter()
        result = evaluation.result()
        pooling = time.perf_counter() - begin
    row = _row("metrics_pooled", counts, size, [total + pooling])
    yield row | {"pooling_s": pooling, "pooled": result["pooled"]}


def scikit_learn(counts: Counts, size: int) -> Iterator[Row]:
    """AUROC and AP of all pixels of each class by scikit-learn, and how far ours are from them;
    F1-max too, untimed, and AUPRO on a small case by trying every threshold."""
    from sklearn import metrics

    total, worst = 0.0, dict.fromkeys(("pixel_auroc", "pixel_ap", "pixel_f1max"), 0.0)
    for drawn in draw_classes(counts, size):
        truth, scores = drawn.masks.ravel(), drawn.maps.ravel()
        begin = time.perf_counter()
        theirs = {
            "pixel_auroc": metrics.roc_auc_score(truth, scores),
            "pixel_ap": metrics.average_precision_score(truth, scores),
        }
        total += time.perf_counter() - begin
        precision, recall, _ = metrics.precision_recall_curve(truth, scores)
        both = np.maximum(precision + recall, np.finfo(float).tiny)
        theirs["pixel_f1max"] = float(np.max(2 * precision * recall / both))
        ours, _ = _score(drawn).figures(_LIMIT)
        worst = {key: max(worst[key], abs(ours[key] - theirs[key])) for key in worst}
    row = _row("metrics_scikit_learn", counts, size, [total])
    yield row | {
        "differences": worst | {"pixel_aupro": brute_force_difference()},
    }


def outlier(counts: Counts, size: int) -> Iterator[Row]:
    """What one defect-free pixel, raised to 20 times the range of its class, does to the figures.

    `changes` and `compat_changes` are the largest over the classes, of our figures and of those
    that count in bins or at evenly spaced thresholds.
    """
    modes: dict[str, Callable[[ClassScores], tuple[Values, Reasons]]] = {
        "exact": lambda scored: scored.figures(_LIMIT),
        "bins_50": lambda scored: binned(scored, 50, _LIMIT),
        "f1max_50": lambda scored: f1_max_of(scored, 50),
        "pro_200": lambda scored: pro(scored, 200),
    }
    changes: dict[str, dict[str, float]] = {name: {} for name in modes}
    begin = time.perf_counter()
    for drawn in draw_classes(counts, size):
        before = _score(drawn)
        values = {name: mode(before)[0] for name, mode in modes.items()}
        low, high = drawn.maps.min(), drawn.maps.max()
        drawn.maps[0, 0, 0] = low + _OUTLIER * (high - low)
        after = _score(drawn)
        for name, mode in modes.items():
            _largest(changes[name], values[name], mode(after)[0])
    row = _row("metrics_outlier", counts, size, [time.perf_counter() - begin])
    yield row | {"changes": changes.pop("exact"), "compat_changes": changes}


def brute_force_difference(size: int = 24, images: int = 6) -> float:
    """Our AUPRO less one that tries every threshold, on small maps with many ties."""
    drawn = next(draw_classes({"small": (images // 2, images - images // 2)}, size, seed=1))
    maps = np.round(drawn.maps * 4).astype(np.float32)
    ours, _ = _score(DrawnClass("small", maps, drawn.masks, drawn.labels)).figures(_LIMIT)
    return abs(ours["pixel_aupro"] - brute_force_aupro(maps, drawn.masks))


def brute_force_aupro(maps: np.ndarray, masks: np.ndarray) -> float:
    """AUPRO of maps [n, S, S] by trying every threshold."""
    from scipy import ndimage

    labelled = [ndimage.label(mask, EIGHT_NEIGHBOURS) for mask in masks]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        overlaps = [
            hit[labels == region].mean()
            for hit, (labels, count) in zip(found, labelled, strict=True)
            for region in range(1, count + 1)
        ]
        points.append((float(found[~masks].mean()), float(np.mean(overlaps))))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 < _LIMIT and x1 > x0:
            end = min(x1, _LIMIT)
            area += (end - x0) * (y0 + (y0 + (y1 - y0) * (end - x0) / (x1 - x0))) / 2
    return area / _LIMIT


def _largest(changes: dict[str, float], before: Values, after: Values) -> None:
    for name in before.keys() & set(PIXEL_METRICS):
        if before[name] is not None and after[name] is not None:
            change = abs(after[name] - before[name])
            changes[name] = max(changes.get(name, 0.0), change)


def _score(drawn: DrawnClass) -> ClassScores:
    check_finite(drawn.maps)
    truth = GroundTruth(drawn.masks, np.arange(len(drawn.masks)))
    return score_maps(drawn.maps, truth, drawn.labels, _POOL)


def _class_maps(drawn: DrawnClass) -> ClassMaps:
    count = len(drawn.maps)
    names = tuple(f"{i:03d}.png" for i in range(count))
    types = tuple("defect" if label else "good" for label in drawn.labels)
    pictures = np.broadcast_to(np.uint8(0), (*drawn.masks.shape, 3))
    maps = {"final": drawn.maps}
    return ClassMaps(drawn.name, names, types, drawn.labels, pictures, drawn.masks, maps)


def _row(case: str, counts: Counts, size: int, seconds: list[float]) -> Row:
    images = int(np.sum(list(counts.values())))
    return timed_row(case, images, Timing(tuple(seconds))) | {
        "classes": len(counts),
        "image_size": size,
    }
