"""Metrics by class with their mean: the block that metrics.json repeats."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from promptmad_jax.evaluation.metrics.exact import (
    Curve,
    Figures,
    Reasons,
    Sample,
    Values,
    build_curve,
    image_sample,
    measure,
)
from promptmad_jax.evaluation.metrics.ground_truth import GroundTruth
from promptmad_jax.evaluation.metrics.metrics import (
    IMAGE_FIGURES,
    IMAGE_METRICS,
    PIXEL_METRICS,
    image_scores,
    pixel_figures,
)
from promptmad_jax.evaluation.scratch import Keep

METRICS = IMAGE_METRICS + PIXEL_METRICS


class Block:
    """Collects the metrics of classes and averages those that are defined."""

    def __init__(self, metrics: Sequence[str] = METRICS):
        self.metrics = tuple(metrics)
        self.classes: dict[str, Values] = {}
        self.undefined: dict[str, Reasons] = {}

    def add(self, class_name: str, values: Values, undefined: Reasons) -> None:
        """Adds the metrics of one class; `undefined` has the reasons of those that are None."""
        self.classes[class_name] = values
        if undefined:
            self.undefined[class_name] = undefined

    def add_unknown(self, class_name: str, reason: str) -> None:
        """Adds a class of which no metric can be known."""
        self.add(class_name, *unknown(self.metrics, reason))

    def result(self) -> dict:
        """The block in the form of metrics.json.

        Returns:
          `classes` (name -> metric -> value or None), `mean` over the classes where the metric is
          defined (None if it is for no class), `defined_classes` (metric -> their number) and
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


def unknown(metrics: Sequence[str], reason: str) -> tuple[Values, Reasons]:
    """Metrics that are all None, and the reason of each."""
    return dict.fromkeys(metrics), dict.fromkeys(metrics, reason)


@dataclass(frozen=True, eq=False)
class ClassScores:
    """The scores of one kind of maps of a class, from which metrics of any definition follow.

    Attributes:
      maps: float [n, H, W], of this process.
      truth: the masks of all processes.
      labels: bool [N], of all images.
      scores: float64 [N], of all images.
      pixels: sample of the pixels of all images.
      image_curve, pixel_curve: the operating points of both.
    """

    maps: np.ndarray
    truth: GroundTruth
    labels: np.ndarray
    scores: np.ndarray
    pixels: Sample
    image_curve: Curve
    pixel_curve: Curve

    def figures(self, limit: float) -> tuple[Values, Reasons]:
        """The values of `METRICS`, AUPRO up to `limit`, and the reasons of those that are None."""
        return self.measure(IMAGE_FIGURES, pixel_figures(limit))

    def measure(self, of_images: Figures, of_pixels: Figures) -> tuple[Values, Reasons]:
        """Metrics of the image curve and of the pixel curve together."""
        images, images_missing = measure(self.image_curve, of_images)
        pixels, pixels_missing = measure(self.pixel_curve, of_pixels)
        return images | pixels, images_missing | pixels_missing


def score_maps(
    maps: np.ndarray,
    truth: GroundTruth,
    labels: np.ndarray,
    pool: int,
    own_scores: np.ndarray | None = None,
) -> ClassScores:
    """Scores the maps float [n, H, W] of this process together with those of the others.

    Args:
      labels: bool [N], of all images.
      pool: window of the image score in pixels.
      own_scores: float [n], the model's own image scores, used instead of the map's maximum.
    """
    given = image_scores(maps, pool) if own_scores is None else own_scores.astype(np.float64)
    scores = truth.images(given)
    pixels = truth.pixels(maps, maps.dtype)
    image_curve = build_curve([image_sample(scores, labels)])
    return ClassScores(maps, truth, labels, scores, pixels, image_curve, build_curve([pixels]))


class Pooled:
    """Metrics of the images and pixels of all classes together.

    Args:
      keep: stores an array on disk and returns it memory-mapped.
    """

    def __init__(self, keep: Keep):
        self._keep = keep
        self._pixels: dict[str, Sample] = {}
        self._images: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, class_name: str, scored: ClassScores) -> None:
        """Stores the scored final map of a class."""
        negatives = self._keep(scored.pixels.negatives)
        self._pixels[class_name] = replace(scored.pixels, negatives=negatives)
        self._images[class_name] = scored.scores, scored.labels

    def figures(self, limit: float) -> tuple[Values, Reasons]:
        """As `ClassScores.figures`."""
        # By name, so that the order of summation does not depend on the order of the classes.
        names = sorted(self._pixels)
        scores, labels = (np.concatenate([self._images[name][i] for name in names]) for i in (0, 1))
        images = measure(build_curve([image_sample(scores, labels)]), IMAGE_FIGURES)
        pixels = measure(build_curve([self._pixels[name] for name in names]), pixel_figures(limit))
        return images[0] | pixels[0], images[1] | pixels[1]
