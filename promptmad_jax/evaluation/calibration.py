"""Constants read off training images, so that no figure depends on the test set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import numpy as np

from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.data.pseudo_anomaly import PseudoAnomalyConfig, synthesize
from promptmad_jax.evaluation.inference import MapMaker
from promptmad_jax.models.functional import Params, Stats
from promptmad_jax.models.outputs import fuse

# A float32 probability cannot come nearer to 1 than 6e-8.
_LEAST_PROBABILITY = 1e-7


class Moments(NamedTuple):
    """Mean and standard deviation of the pixels of a class's normal maps."""

    mean: float
    deviation: float


class NormalMaps(NamedTuple):
    """A class's normal pixels: the reconstruction's distances and the segmentor's log-odds."""

    reconstruction: Moments
    segmentation: Moments


@dataclass(frozen=True)
class Calibration:
    """Attributes:
    fusion_scale: brings the segmentor's probability to the reconstruction map's scale.
    normal: what each class's maps look like on normal training images.
    score_range: (low, high) of a class's final map, for drawing: the median of its normal
        training pixels, and the 99.9th percentile of its pseudo-anomalous ones.
    """

    fusion_scale: float
    normal: dict[str, NormalMaps]
    score_range: dict[str, tuple[float, float]]


def calibrate(
    maker: MapMaker,
    params: Params,
    stats: Stats,
    train: ImageSet,
    fusion: str,
    pseudo: PseudoAnomalyConfig,
    count: int,
    seed: int,
) -> Calibration:
    """Maps about `count` training images, at least two a class, and their pseudo-anomalies.

    The reference takes (max + min) / 2 of the reconstruction maps of all test images, defects
    included; here the pseudo-anomalies stand for them.
    """
    rows = _spread(train.class_ids, max(2, count // len(train.class_names)))
    images, ids = np.asarray(train.images[rows]), train.class_ids[rows]
    keys = jax.random.split(jax.random.key(seed), len(rows))
    damaged, _ = jax.jit(synthesize, static_argnums=3)(keys, images, np.roll(images, 1, 0), pseudo)
    bank = maker.bank(params, stats)
    normal = maker.maps(params, stats, bank, images, ids)
    anomalous = maker.maps(params, stats, bank, np.asarray(damaged).astype(np.uint8), ids)
    both = np.concatenate([normal["reconstruction"], anomalous["reconstruction"]])
    calibration = Calibration(
        float((both.max() + both.min()) / 2),
        {
            name: NormalMaps(
                _moments(normal["reconstruction"][ids == k]),
                _moments(log_odds(segmentation(normal)[ids == k])),
            )
            for k, name in enumerate(train.class_names)
        },
        {},
    )
    names = [train.class_names[k] for k in ids]
    low, high = (final_map(maps, fusion, calibration, names) for maps in (normal, anomalous))
    ranges = {
        name: (float(np.median(low[ids == k])), float(np.quantile(high[ids == k], 0.999)))
        for k, name in enumerate(train.class_names)
    }
    return replace(calibration, score_range=ranges)


def final_map(
    maps: dict[str, np.ndarray], fusion: str, calibration: Calibration, class_names: Sequence[str]
) -> np.ndarray:
    """The map that is measured, of the model's maps [n, S, S] of images of `class_names` [n].

    Args:
        fusion: the rule, one of `config.eval.fusion`.
    """
    reconstruction, probability = maps["reconstruction"], segmentation(maps)
    match fusion:
        case "reconstruction":
            return reconstruction
        case "segmentor":
            return probability
        case "calibrated":
            return fuse(reconstruction, probability, np.float32(calibration.fusion_scale))
        case "image_local":
            extent = reconstruction.max((1, 2), keepdims=True) + reconstruction.min(
                (1, 2), keepdims=True
            )
            return fuse(reconstruction, probability, extent / 2)
        case "standardized":
            normal = [calibration.normal[name] for name in class_names]
            return standardize(reconstruction, [n.reconstruction for n in normal]) + standardize(
                log_odds(probability), [n.segmentation for n in normal]
            )
    raise ValueError(f"fusion rule {fusion!r} is unknown")


def segmentation(maps: dict[str, np.ndarray]) -> np.ndarray:
    """The best of the segmentor's maps: the refined one where there is one."""
    return maps["refined"] if "refined" in maps else maps["coarse"]


def log_odds(probability: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), finite for every float32 probability."""
    p = np.clip(probability, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    return np.log(p) - np.log1p(-p)


def standardize(maps: np.ndarray, moments: Sequence[Moments]) -> np.ndarray:
    """Maps [n, S, S] less their class's normal mean, in its standard deviations."""
    mean, deviation = np.asarray(moments, np.float32).T[..., None, None]
    return (maps - mean) / deviation


def _moments(pixels: np.ndarray) -> Moments:
    # A dead map, constant on normal images, must not turn its noise into a score.
    return Moments(float(pixels.mean()), max(float(pixels.std()), 1e-6))


def _spread(class_ids: np.ndarray, per_class: int) -> np.ndarray:
    """Rows evenly spread over each class's images."""
    rows = []
    for k in np.unique(class_ids):
        members = np.flatnonzero(class_ids == k)
        rows.append(members[np.unique(np.linspace(0, len(members) - 1, per_class).astype(int))])
    return np.concatenate(rows)
