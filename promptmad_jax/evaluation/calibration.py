"""Constants read off training images, so that no figure depends on the test set."""

from dataclasses import dataclass

import jax
import numpy as np

from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.data.pseudo_anomaly import PseudoAnomalyConfig, synthesize
from promptmad_jax.evaluation.inference import MapMaker
from promptmad_jax.models.functional import Params, Stats
from promptmad_jax.models.outputs import fuse


@dataclass(frozen=True)
class Calibration:
    """Attributes:
    fusion_scale: brings the segmentor's probability to the reconstruction map's scale.
    score_range: (low, high) of a class's final map, for drawing: the median of its normal
        training pixels, and the 99.9th percentile of its pseudo-anomalous ones.
    """

    fusion_scale: float
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
    scale = float((both.max() + both.min()) / 2)
    ranges = {}
    for k, name in enumerate(train.class_names):
        low = np.median(final_map({m: x[ids == k] for m, x in normal.items()}, fusion, scale))
        high = np.quantile(
            final_map({m: x[ids == k] for m, x in anomalous.items()}, fusion, scale), 0.999
        )
        ranges[name] = (float(low), float(high))
    return Calibration(scale, ranges)


def final_map(maps: dict[str, np.ndarray], fusion: str, scale: float) -> np.ndarray:
    """The map that is measured, of the model's maps [n, S, S], by the rule `fusion`."""
    segmentation = maps["refined"] if "refined" in maps else maps["coarse"]
    match fusion:
        case "reconstruction":
            return maps["reconstruction"]
        case "segmentor":
            return segmentation
        case "calibrated":
            return fuse(maps["reconstruction"], segmentation, np.float32(scale))
    raise ValueError(f"fusion rule {fusion!r} is unknown")


def _spread(class_ids: np.ndarray, per_class: int) -> np.ndarray:
    """Rows evenly spread over each class's images."""
    rows = []
    for k in np.unique(class_ids):
        members = np.flatnonzero(class_ids == k)
        rows.append(members[np.unique(np.linspace(0, len(members) - 1, per_class).astype(int))])
    return np.concatenate(rows)
