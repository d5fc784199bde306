"""How fast the figures of a full test set are computed."""

import time
from collections.abc import Iterator

import numpy as np

from promptmad_jax.benchmarking.rows import Row, timed_row
from promptmad_jax.benchmarking.synthetic_maps import DrawnClass, draw_classes
from promptmad_jax.benchmarking.timing import Timing
from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.metrics.blocks import METRICS, Block, ClassScores, score_maps
from promptmad_jax.evaluation.metrics.ground_truth import GroundTruth
from promptmad_jax.evaluation.metrics.metrics import check_finite
from promptmad_jax.evaluation.protocol import Evaluator

_POOL, _LIMIT = 16, 0.3

Counts = dict[str, tuple[int, int]]


def per_class(counts: Counts, size: int, repeats: int) -> Iterator[Row]:
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


def whole_evaluation(counts: Counts, size: int) -> Iterator[Row]:
    """A whole evaluation, as a run makes it: the maps also wait on disk to be pooled."""
    total = 0.0
    with Evaluator(EvalConfig(compat=())) as evaluation:
        for drawn in draw_classes(counts, size):
            maps = _class_maps(drawn)
            begin = time.perf_counter()
            evaluation.add(maps)
            total += time.perf_counter() - begin
        begin = time.perf_counter()
        result = evaluation.result()
        pooling = time.perf_counter() - begin
    row = _row("metrics_pooled", counts, size, [total + pooling])
    yield row | {"pooling_s": pooling, "pooled": result["pooled"]}


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
