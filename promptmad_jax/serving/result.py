"""Results of a detector for an image, at the image's size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from promptmad_jax.evaluation.metrics.regions import Region, find_regions
from promptmad_jax.serving.prediction import Prediction


@dataclass(frozen=True, eq=False)
class Result:
    """Scores of an image and the verdict on it.

    Attributes:
        class_name: the class that was named or found.
        score: of the image, on the scale of the class; higher is more anomalous.
        threshold: scores above it are defective; None if unknown.
        verdict: "normal" or "defective"; None without a threshold.
        map: float32 [H, W], anomaly scores of the pixels.
        regions: connected pixels above the pixel threshold, the highest peak first; empty without
            a threshold.
        details: for zero-shot detectors, the most probable `type`, and the highest probability of
            each type in `types`; else empty.
    """

    class_name: str
    score: float
    threshold: float | None
    verdict: str | None
    map: np.ndarray
    regions: tuple[Region, ...]
    details: Mapping[str, Any]


def make_result(prediction: Prediction, height: int, width: int) -> Result:
    """Enlarges the map of a prediction to the image's size and applies the thresholds."""
    enlarged = Image.fromarray(prediction.anomaly_map).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    anomaly_map = np.asarray(enlarged, np.float32)
    name, score, thresholds = prediction.class_name, prediction.score, prediction.thresholds
    if thresholds is None:
        return Result(name, score, None, None, anomaly_map, (), prediction.details)
    verdict = "defective" if score > thresholds.image else "normal"
    regions = tuple(find_regions(anomaly_map, thresholds.pixel))
    return Result(name, score, thresholds.image, verdict, anomaly_map, regions, prediction.details)
