"""Fusion rules: one final map from a model's reconstruction and segmentation maps."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

# A float32 probability cannot come nearer to 1 than 6e-8.
_LEAST_PROBABILITY = 1e-7

# Of the log-odds in "standardized": a weight of 1 ranks images better and pixels worse. Chosen on
# synthetic test images of another seed than the quickstart's.
SEGMENTATION_WEIGHT = np.float32(0.5)

Maps = dict[str, np.ndarray]


class Moments(NamedTuple):
    """Mean and standard deviation of the pixels of a class's normal maps."""

    mean: float
    deviation: float


class NormalMaps(NamedTuple):
    """Moments of a class's normal pixels, of each map that the model has.

    Attributes:
        reconstruction, memory: of the distances.
        segmentation: of the segmentor's log-odds, or of the distance that it corrected.
    """

    reconstruction: Moments | None
    segmentation: Moments | None
    memory: Moments | None = None


Weights = Mapping[str, float]


def final_map(
    maps: Maps, fusion: str, scale: float, normal: Sequence[NormalMaps], weights: Weights
) -> np.ndarray:
    """Fuses the model's maps [n, S, S] into the final map.

    Args:
        fusion: the rule, `EvalConfig.fusion`.
        scale: brings the probability to the reconstruction map's scale, for "calibrated".
        normal: of each image's class, [n], for "standardized" and "weighted".
        weights: of the parts of `NormalMaps`, for "weighted".
    """
    if fusion == "weighted":
        return _add(maps, normal, weights)
    if fusion == "segmentor":
        return segmentation(maps)
    reconstruction = maps["reconstruction"]
    if fusion == "reconstruction":
        return reconstruction
    probability = segmentation(maps)
    match fusion:
        case "calibrated":
            return fuse(reconstruction, probability, np.float32(scale))
        case "image_local":
            highest = reconstruction.max((1, 2), keepdims=True)
            lowest = reconstruction.min((1, 2), keepdims=True)
            return fuse(reconstruction, probability, (highest + lowest) / 2)
        case "standardized":
            odds = _standardize(log_odds(probability), [n.segmentation for n in normal])
            distance = _standardize(reconstruction, [n.reconstruction for n in normal])
            return distance + SEGMENTATION_WEIGHT * odds
    raise ValueError(f"fusion rule {fusion!r} is unknown")


def segmentation(maps: Maps) -> np.ndarray | None:
    """The refined map, else the coarse one, else None for a model that segments nothing."""
    return next((maps[name] for name in ("refined", "coarse") if name in maps), None)


def log_odds(probability: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), finite for every float32 probability."""
    p = np.clip(probability, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    return np.log(p) - np.log1p(-p)


def normal_maps(maps: Maps) -> NormalMaps:
    """The moments of a class's maps of normal images."""
    parts = parts_of(maps)
    return NormalMaps(*(_moments(parts[n]) if n in parts else None for n in NormalMaps._fields))


def parts_of(maps: Maps) -> Maps:
    """The parts of `NormalMaps` that a model's maps have."""
    parts = {name: maps[name] for name in ("reconstruction", "memory") if name in maps}
    probability = segmentation(maps)
    if "corrected" in maps:
        parts["segmentation"] = maps["corrected"]
    elif probability is not None:
        parts["segmentation"] = log_odds(probability)
    return parts


def _add(maps: Maps, normal: Sequence[NormalMaps], weights: Weights) -> np.ndarray:
    """The weighted sum of the parts, each in standard deviations of its normal pixels."""
    parts = parts_of(maps)
    return sum(
        np.float32(weight) * _standardize(parts[name], [getattr(n, name) for n in normal])
        for name, weight in weights.items()
    )


def _standardize(maps: np.ndarray, moments: Sequence[Moments]) -> np.ndarray:
    """Standardizes maps [n, S, S] by the normal mean and deviation of their classes."""
    mean, deviation = np.asarray(moments, np.float32).reshape(-1, 2).T[..., None, None]
    return (maps - mean) / deviation


def _moments(pixels: np.ndarray) -> Moments:
    # Bounded, so that a map that is constant on normal images does not turn noise into a score.
    return Moments(float(pixels.mean()), max(float(pixels.std()), 1e-6))


def fuse(reconstruction, segmentation, scale):
    """OneNIP's fused map: half the reconstruction map, half the segmentation brought to its scale.

    `scale` is (max + min) / 2 of reconstruction maps: over the whole test set in the reference,
    over calibration images here by default.
    """
    return 0.5 * reconstruction + 0.5 * scale * segmentation
