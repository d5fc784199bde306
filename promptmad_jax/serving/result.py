"""Results of a detector for an image, at the image's size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from promptmad_jax.evaluation.thresholds import Thresholds
from promptmad_jax.serving.prediction import Prediction
from promptmad_jax.serving.regions import Region, find_regions


@dataclass(frozen=True, eq=False)
class Result:
    """Scores of an image and the verdict on it.

    Attributes:
        class_name: the class that was named or found.
        score: of the image, on the scale of the class; higher is more anomalous.
        threshold: scores above it are defective; None if unknown.
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
    verdict: str | None
    reason: str
    novelty: float | None
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
        rest = anomaly_map, (), prediction.details
        return Result(name, score, None, None, "", None, *rest)
    novelty = None
    if prediction.novelty is not None and thresholds.novelty is not None:
        novelty = prediction.novelty / thresholds.novelty
    verdict, reason, regions = _judge(prediction, thresholds, novelty, (height, width))
    rest = anomaly_map, regions, prediction.details
    return Result(name, score, thresholds.image, verdict, reason, novelty, *rest)


def _judge(
    prediction: Prediction, thresholds: Thresholds, novelty: float | None, size: tuple[int, int]
) -> tuple[str, str, tuple[Region, ...]]:
    """Verdict, reason and regions."""
    score = prediction.score
    if novelty is not None and novelty > 1:
        return "unknown", f"{prediction.unlike}: {novelty:.1f} times the limit", ()
    if not score > thresholds.image:
        return "normal", f"score {score:.3g} up to the threshold {thresholds.image:.3g}", ()
    # A peak is at least as high as the score, an average: so every defective image has a region.
    level = thresholds.image if thresholds.region is None else thresholds.region
    level = min(level, float(np.nextafter(score, -np.inf)))
    normal = min(prediction.score_range[0], level)
    regions = find_regions(prediction.anomaly_map, level, normal, size)
    noun = "region" if len(regions) == 1 else "regions"
    reason = f"score {score:.3g} above the threshold {thresholds.image:.3g}, {len(regions)} {noun}"
    return "defective", reason, tuple(regions)
