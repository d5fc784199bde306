"""The data of the charts, shared by the page (SVG) and the figures (matplotlib)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptmad_jax.reporting.curves import POINTS

BINS = 24
FALSE_POSITIVES = "false-positive rate"
TRAINING_TITLES = {
    "losses": "Losses",
    "learning_rate": "Learning rate",
    "evaluation": "Evaluation, mean over the classes",
}
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

Series = tuple[np.ndarray, np.ndarray]  # steps and values


@dataclass(frozen=True)
class Panel:
    """A kind of curve: its title, the metric that is its area, and the names of its axes."""

    title: str
    metric: str
    x: str
    y: str


# Keyed as in `curves.class_curves`.
PANELS = {
    "pixel_roc": Panel("Pixel ROC", "pixel_auroc", FALSE_POSITIVES, "true-positive rate"),
    "pixel_pr": Panel("Pixel PR", "pixel_ap", "recall", "precision"),
    "pixel_pro": Panel("Pixel PRO", "pixel_aupro", FALSE_POSITIVES, "per-region overlap"),
    "image_roc": Panel("Image ROC", "image_auroc", FALSE_POSITIVES, "true-positive rate"),
    "image_pr": Panel("Image PR", "image_ap", "recall", "precision"),
}


def histogram(
    scores: np.ndarray, labels: np.ndarray, threshold: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bins image scores over a range that includes the threshold.

    Args:
      scores: float [n]. labels: bool [n], true for defective images.

    Returns:
      Edges [BINS + 1] and the counts [BINS] of normal and of defective images.
    """
    values = scores if threshold is None else np.append(scores, threshold)
    edges = np.linspace(*bounds(values, 0.02), BINS + 1)
    return edges, *(np.histogram(scores[labels == kind], edges)[0] for kind in (False, True))


def bounds(values: np.ndarray, margin: float) -> tuple[float, float]:
    """The range of the values, widened by a share `margin` of it, never empty."""
    low, high = float(values.min()), float(values.max())
    extra = margin * (high - low) if high > low else max(0.1 * abs(low), 1e-7)
    return low - extra, high + extra


def is_logarithmic(series: Mapping[str, Series]) -> bool:
    """Returns True if all values are positive and span more than a decade."""
    values = np.concatenate([values for _, values in series.values()])
    return bool(values.min() > 0 and values.max() > 10 * values.min())


def training_series(history: Sequence[Mapping]) -> dict[str, dict[str, Series]]:
    """The course of training from the rows of metrics.jsonl, chart by chart.

    Returns:
      `losses` (the total first), `learning_rate` and `evaluation` (means over the classes), each
      name -> (steps, values). Null values are skipped, series of a single point left out, and
      long series averaged to `POINTS` or fewer.
    """
    train = [row for row in history if row["kind"] == "train"]
    evaluations = [row for row in history if row["kind"] == "eval"]
    losses = {name for row in train for name in row} - set(NOT_LOSSES)
    metrics = dict.fromkeys(name for row in evaluations for name in row)
    charts = {
        "losses": _series(train, sorted(losses, key=lambda name: (name != "loss", name))),
        "learning_rate": _series(train, ["learning_rate"]),
        "evaluation": _series(evaluations, [name for name in metrics if name not in NOT_LOSSES]),
    }
    return {name: series for name, series in charts.items() if series}


def _series(rows: Sequence[Mapping], names: Sequence[str]) -> dict[str, Series]:
    series = {}
    for name in names:
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        if len(points) > 1:
            series[name] = _averaged(*np.array(points, np.float64).T)
    return series


def _averaged(steps: np.ndarray, values: np.ndarray) -> Series:
    """Averages neighbours, so that the chart of a long run stays small."""
    starts = np.arange(0, len(steps), math.ceil(len(steps) / POINTS))
    sizes = np.diff(np.append(starts, len(steps)))
    return steps[starts + sizes - 1], np.add.reduceat(values, starts) / sizes
