"""Timings of the metrics of a full test set."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from promptmad_jax.benchmarking.rows import Row, timed_row
from promptmad_jax.benchmarking.synthetic_maps import Counts, draw_classes
from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.metrics.blocks import METRICS, Block, score_maps
from promptmad_jax.evaluation.metrics.ground_truth import GroundTruth
from promptmad_jax.evaluation.metrics.metrics import check_finite
from promptmad_jax.evaluation.protocol import Evaluator

_POOL, _LIMIT = 16, 0.3


def per_class(counts: Counts, size: int, repeats: int) -> Iterator[Row]:
    """Times all metrics of each class: `METRICS`, and AUPRO up to 0.05."""
    seconds = []
    for _ in range(repeats):
        block = Block()
        seconds.append(sum(_seconds(_score, block, maps) for maps in draw_classes(counts, size)))
    row = _row("metrics", counts, size, seconds)
    yield row | {"metrics": list(METRICS), "mean": block.result()["mean"]}


def whole_evaluation(counts: Counts, size: int) -> Iterator[Row]:
    """Times the evaluation of a run, which also keeps the maps on disk and pools them."""
    with Evaluator(EvalConfig(compat=())) as evaluation:
        adding = sum(_seconds(evaluation.add, maps) for maps in draw_classes(counts, size))
        begin = time.perf_counter()
        result = evaluation.result()
        pooling = time.perf_counter() - begin
    row = _row("metrics_pooled", counts, size, [adding + pooling])
    yield row | {"pooling_s": pooling, "pooled": result["pooled"]}


def _score(block: Block, maps: ClassMaps) -> None:
    final = maps.maps["final"]
    check_finite(final)
    scores = score_maps(final, GroundTruth(maps.masks, maps.indices), maps.labels, _POOL)
    block.add(maps.class_name, *scores.figures(_LIMIT))


def _seconds(function: Callable[..., Any], *arguments: Any) -> float:
    begin = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - begin


def _row(case: str, counts: Counts, size: int, seconds: list[float]) -> Row:
    images = sum(map(sum, counts.values()))
    row = timed_row(case, images, np.array(seconds))
    return row | {"classes": len(counts), "image_size": size}
