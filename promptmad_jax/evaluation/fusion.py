"""The rules that make one map of a model's reconstruction and segmentation."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from promptmad_jax.models.reconstruction.outputs import fuse

# A float32 probability cannot come nearer to 1 than 6e-8.
_LEAST_PROBABILITY = 1e-7

# Of the log-odds in "standardized": a whole one ranks images better and pixels worse. Chosen on
# synthetic test images of another seed than the quickstart's.
SEGMENTATION_WEIGHT = np.float32(0.5)

Maps = dict[str, np.ndarray]


class Moments(NamedTuple):
    """Mean and standard deviation of the pixels of a class's normal maps."""

    mean: float
    deviation: float


class NormalMaps(NamedTuple):
    """A class's normal pixels: the reconstruction's distances and the segmentor's log-odds, None
    for a model that segments nothing."""

    reconstruction: Moments
    segmentation: Moments | None


def final_map(maps: Maps, fusion: str, scale: float, normal: Sequence[NormalMaps]) -> np.ndarray:
    """The map that is measured, of the model's maps [n, S, S].

    Args:
        fusion: the rule, one of `config.eval.fusion`.
        scale: brings the probability to the reconstruction map's scale, for "calibrated".
        normal: of each image's class, [n], for "standardized".
    """
    reconstruction = maps["reconstruction"]
    if fusion == "reconstruction":
        return reconstruction
    probability = segmentation(maps)
    match fusion:
        case "segmentor":
            return probability
        case "calibrated":
            return fuse(reconstruction, probability, np.float32(scale))
        case "image_local":
            highest, lowest = (
                extreme((1, 2), keepdims=True)
                for extreme in (reconstruction.max, reconstruction.min)
            )
            return fuse(reconstruction, probability, (highest + lowest) / 2)
        case "standardized":
            odds = _standardize(log_odds(probability), [n.segmentation for n in normal])
            distance = _standardize(reconstruction, [n.reconstruction for n in normal])
            return distance + SEGMENTATION_WEIGHT * odds
    raise ValueError(f"fusion rule {fusion!r} is unknown")


def segmentation(maps: Maps) -> np.ndarray | None:
    """The refined map, or a model's coarse one; None where it segments nothing."""
    return next((maps[name] for name in ("refined", "coarse") if name in maps), None)


def log_odds(probability: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), finite for every float32 probability."""
    p = np.clip(probability, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    return np.log(p) - np.log1p(-p)


def normal_maps(maps: Maps) -> NormalMaps:
    """The moments of a class's maps of normal images."""
    probability = segmentation(maps)
    odds = None if probability is None else _moments(log_odds(probability))
    return NormalMaps(_moments(maps["reconstruction"]), odds)


def _standardize(maps: np.ndarray, moments: Sequence[Moments]) -> np.ndarray:
    """Maps [n, S, S] less their class's normal mean, in its standard deviations."""
    mean, deviation = np.asarray(moments, np.float32).reshape(-1, 2).T[..., None, None]
    return (maps - mean) / deviation


def _moments(pixels: np.ndarray) -> Moments:
    # A dead map, constant on normal images, must not turn its noise into a score.
    return Moments(float(pixels.mean()), max(float(pixels.std()), 1e-6))
