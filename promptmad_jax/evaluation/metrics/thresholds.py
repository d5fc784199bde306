"""Metrics of decisions at fixed thresholds of each class."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from promptmad_jax.evaluation.metrics.blocks import Block, ClassScores
from promptmad_jax.evaluation.metrics.exact import (
    Reasons,
    Sample,
    Values,
    count_above,
    false_positives,
    image_sample,
)
from promptmad_jax.runtime.errors import UserError

THRESHOLD_METRICS = tuple(
    (
        "pixel_iou pixel_precision pixel_recall pixel_f1 pixel_fpr image_accuracy image_precision "
        "image_recall image_f1 image_fpr"
    ).split()
)
GOOD = "pixel_fpr_good"
_OF_DEFECTS = ("iou", "precision", "recall", "f1")


class Confusion(NamedTuple):
    """Positives and negatives above the threshold, and the numbers of both."""

    true: int
    false: int
    positives: int
    negatives: int


def threshold_metrics(
    pixels: Sample, images: Sample, thresholds: tuple[float, float]
) -> tuple[Values, Reasons]:
    """Computes the metrics of one class at fixed thresholds.

    Args:
      pixels, images: scores of the class.
      thresholds: of a pixel and of an image; scores that exceed them count as defective.

    Returns:
      `THRESHOLD_METRICS`, and the reasons of those that are None: no defect to find, or nothing to
      divide by. `fpr` is the share of the normal that exceeds the threshold.
    """
    values, undefined = {}, {}
    for sample, threshold in zip((pixels, images), thresholds, strict=True):
        counts = confuse(sample, threshold)
        for name, (part, whole) in _ratios(counts).items():
            key = f"{sample.unit}_{name}"
            if key in THRESHOLD_METRICS:
                values[key], reason = None, _missing(name, counts, whole, sample.unit)
                if reason is None:
                    values[key] = part / whole
                else:
                    undefined[key] = reason
    return values, undefined


def confuse(sample: Sample, threshold: float) -> Confusion:
    """Counts the scores above the threshold, which is rounded to their type."""
    limit = np.asarray([threshold], sample.positives.dtype)
    return Confusion(
        int(count_above(np.sort(sample.positives), limit)[0, 0]),
        int(false_positives([sample], limit)[0, 0]),
        len(sample.positives),
        sample.negative_count,
    )


def _ratios(counts: Confusion) -> dict[str, tuple[int, int]]:
    true, false, positives, negatives = counts
    return {
        "iou": (true, positives + false),
        "precision": (true, true + false),
        "recall": (true, positives),
        "f1": (2 * true, true + false + positives),
        "fpr": (false, negatives),
        "accuracy": (true + negatives - false, positives + negatives),
    }


def _missing(name: str, counts: Confusion, whole: int, unit: str) -> str | None:
    if name in _OF_DEFECTS and not counts.positives:
        return f"no defective {unit}"
    if whole:
        return None
    return f"no normal {unit}" if name == "fpr" else f"no {unit} exceeds the threshold"


class Decisions:
    """Collects the threshold metrics of classes.

    With them comes `GOOD`, the share of normal images' pixels above the threshold: the rate that it
    is set for, whereas a defect raises the normal pixels around it.

    Args:
      thresholds: class -> thresholds of a pixel and of an image; further entries are ignored.
    """

    def __init__(self, thresholds: Mapping[str, tuple]):
        self._thresholds = {
            name: (float(pixel), float(image)) for name, (pixel, image, *_) in thresholds.items()
        }
        self._block = Block((*THRESHOLD_METRICS, GOOD))

    def check(self, class_name: str) -> None:
        """Raises UserError for a class without thresholds."""
        if class_name not in self._thresholds:
            raise UserError(
                f"class {class_name} has no thresholds (those with some: "
                f"{', '.join(self._thresholds)}); calibrate it too"
            )

    def add(self, class_name: str, scored: ClassScores) -> None:
        """Adds the decisions on the final maps of one class."""
        images = image_sample(scored.scores, scored.labels)
        pixel, image = self._thresholds[class_name]
        values, undefined = threshold_metrics(scored.pixels, images, (pixel, image))
        limit = np.asarray(pixel, scored.maps.dtype)
        shares = scored.truth.images((scored.maps > limit).mean((1, 2)))[~scored.labels]
        values[GOOD] = float(shares.mean()) if len(shares) else None
        missing = {} if len(shares) else {GOOD: "no normal image"}
        self._block.add(class_name, values, undefined | missing)

    def add_unknown(self, class_name: str, reason: str) -> None:
        """Adds a class without test images, of which only the thresholds are known."""
        self._block.add_unknown(class_name, reason)

    def result(self) -> dict:
        """The block, with `values`: class -> the thresholds of a pixel and of an image."""
        values = {
            name: dict(zip(("pixel", "image"), self._thresholds[name], strict=True))
            for name in self._block.classes
        }
        return self._block.result() | {"values": values}
