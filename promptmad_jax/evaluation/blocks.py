"""Figures class by class with their mean: the block that metrics.json repeats."""

from collections.abc import Sequence

import numpy as np

from promptmad_jax.evaluation.metrics import (
    IMAGE_METRICS,
    PIXEL_METRICS,
    PixelScores,
    image_metrics,
    image_scores,
    pixel_metrics_of,
)

METRICS = IMAGE_METRICS + PIXEL_METRICS
Values = dict[str, float | None]


class Block:
    """Collects the figures of classes and averages those that are defined."""

    def __init__(self, metrics: Sequence[str] = METRICS):
        self.metrics = tuple(metrics)
        self.classes: dict[str, Values] = {}
        self.undefined: dict[str, dict[str, str]] = {}

    def add(self, class_name: str, values: Values, undefined: dict[str, str]) -> None:
        """Adds the figures of one class, None where `undefined` says why."""
        self.classes[class_name] = values
        if undefined:
            self.undefined[class_name] = undefined

    def result(self) -> dict:
        """The block in the form of metrics.json.

        Returns:
          `classes` (name -> metric -> value or None), `mean` over the classes where the metric is
          defined (None where there is none), `defined_classes` (metric -> their number) and
          `undefined` (name -> metric -> reason).
        """
        mean, defined = {}, {}
        for metric in self.metrics:
            values = [row[metric] for row in self.classes.values() if row[metric] is not None]
            mean[metric] = float(np.mean(values)) if values else None
            defined[metric] = len(values)
        return {
            "classes": dict(self.classes),
            "mean": mean,
            "defined_classes": defined,
            "undefined": dict(self.undefined),
        }


def class_metrics(
    maps: np.ndarray, pixels: PixelScores, labels: np.ndarray, pool: int, limit: float
) -> tuple[Values, dict[str, str]]:
    """All figures of one class.

    Args:
      maps: float [n, H, W], finite.
      pixels: the same maps, split by the masks.
      labels: [n], non-zero for defective images.
      pool: window of the image score in pixels.
      limit: the false-positive rate up to which AUPRO integrates.

    Returns:
      The seven values and the reasons of those that are None.
    """
    of_images, images_missing = image_metrics(image_scores(maps, pool), labels)
    of_pixels, pixels_missing = pixel_metrics_of([pixels], limit)
    return of_images | of_pixels, images_missing | pixels_missing
