"""Spread of the metrics over several evaluations, such as over the choice of prompt images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_SECTIONS = ("classes", "mean", "pooled")
_BLOCKS = ("maps", "compat")


def spread(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merges the results of several evaluations of one test set.

    Args:
      results: from `Evaluator.result`.

    Returns:
      `count`, the number of results, and `classes`, `mean`, `pooled`, `maps`, `compat` and
      `thresholds` as in a result, with {"mean", "std", "min", "max", "defined"} for each value:
      statistics over the `defined` results that define it. `std` is that of a sample (divided by
      n - 1), None below two.

    Raises:
      ValueError: the results differ in classes, metrics, maps or modes, or none is given.
    """
    if not results:
        raise ValueError("no results to merge")
    merged = _block(results)
    for name in _BLOCKS:
        blocks = _same_keys([result[name] for result in results])
        merged[name] = {key: _block([one[key] for one in blocks]) for key in blocks[0]}
    if "thresholds" in results[0]:
        merged["thresholds"] = _block([result["thresholds"] for result in results])
    return {"count": len(results)} | merged


def _block(blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        name: _values([block[name] for block in blocks]) for name in _SECTIONS if name in blocks[0]
    }


def _values(values: Sequence[Any]) -> dict[str, Any]:
    if isinstance(values[0], Mapping):
        _same_keys(values)
        return {key: _values([one[key] for one in values]) for key in values[0]}
    return _statistics([value for value in values if value is not None])


def _statistics(values: Sequence[float]) -> dict[str, float | int | None]:
    names = ("mean", "std", "min", "max")
    if not values:
        return dict.fromkeys(names) | {"defined": 0}
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    numbers = float(np.mean(values)), std, float(min(values)), float(max(values))
    return dict(zip(names, numbers, strict=True)) | {"defined": len(values)}


def _same_keys(values: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    if any(set(one) != set(values[0]) for one in values):
        raise ValueError(f"the results differ in form: {[sorted(one) for one in values]}")
    return values
