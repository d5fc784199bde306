"""Results of a detector for an image, at the image's size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from promptmad_jax.evaluation.regions import Region, find_regions, marking_levels
from promptmad_jax.serving.prediction import Prediction


@dataclass(frozen=True, eq=False)
class Result:
    """Scores of an image and the verdict on it.

    Attributes:
        class_name: the class that was named or found.
        score: of the image, on the scale of the class; higher is more anomalous.
        threshold: scores above it are defective; None if unknown.
        false_alarm_rate: expected share of good images above the threshold; None if unknown.
        verdict: "normal", "defective", or "unknown" for what is no picture of the class; None
            without a threshold.
        reason: why, in a few words; "" without a verdict.
        novelty: distance from the class's normal images in units of its limit, above which the
            image is unknown; None if it is not measured.
        map: float32 [H, W], anomaly scores of the pixels.
        regions: of a defective image, the highest peak first.
        details: for zero-shot detectors, the most probable `type`, and the highest probability of
            each type in `types`; else empty.
    """

    class_name: str
    score: float
    threshold: float | None
    false_alarm_rate: float | None
    verdict: str | None
    reason: str
    novelty: float | None
    map: np.ndarray
    regions: tuple[Region, ...]
    details: Mapping[str, Any]


def make_result(prediction: Prediction, height: int, width: int, min_region: int = 0) -> Result:
    """Enlarges the map of a prediction to the image's size and applies the thresholds.

    Args:
        min_region: smallest area of a region, in the image's pixels; an image whose regions are all
            smaller is normal.
    """
    enlarged = Image.fromarray(prediction.anomaly_map).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    anomaly_map = np.asarray(enlarged, np.float32)
    name, score, thresholds = prediction.class_name, prediction.score, prediction.thresholds
    if thresholds is None:
        rest = anomaly_map, (), prediction.details
        return Result(name, score, None, None, None, "", None, *rest)
    novelty = None
    if prediction.novelty is not None and thresholds.novelty is not None:
        novelty = prediction.novelty / thresholds.novelty
    verdict, reason, regions = _judge(prediction, novelty, (height, width), min_region)
    rest = anomaly_map, regions, prediction.details
    limit = thresholds.image, thresholds.rate
    return Result(name, score, *limit, verdict, reason, novelty, *rest)


def _judge(
    prediction: Prediction, novelty: float | None, size: tuple[int, int], min_region: int
) -> tuple[str, str, tuple[Region, ...]]:
    """Verdict, reason and regions."""
    score, threshold = prediction.score, prediction.thresholds.image
    if novelty is not None and novelty > 1:
        return "unknown", f"{prediction.unlike}: {novelty:.1f} times the limit", ()
    if not score > threshold:
        return "normal", f"score {score:.3g} up to the threshold {threshold:.3g}", ()
    levels = marking_levels(prediction.thresholds, prediction.score_range[0], score)
    found = find_regions(prediction.anomaly_map, *levels, size)
    regions = tuple(region for region in found if region.area >= min_region)
    reason = f"score {score:.3g} above the threshold {threshold:.3g}, "
    if not regions:
        return "normal", f"{reason}but no region has {min_region} pixels", ()
    return "defective", f"{reason}{len(regions)} region{'s' * (len(regions) > 1)}", regions
