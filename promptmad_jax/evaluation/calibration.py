"""Calibration on normal images, so that no metric depends on constants from the test set."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import numpy as np

from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.data.pseudo_anomaly.config import PseudoAnomalyConfig
from promptmad_jax.data.pseudo_anomaly.synthesis import synthesize
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.fusion import Maps, NormalMaps, final_map, normal_maps
from promptmad_jax.evaluation.inference import MapMaker
from promptmad_jax.evaluation.metrics.metrics import check_finite, image_scores, pixel_metrics
from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.errors import UserError

_DRAWING_QUANTILE = 0.999
# Weights of maps are tried in steps of 1 / _SHARES.
_SHARES = 4


class Thresholds(NamedTuple):
    """Thresholds of a class, above which a pixel or an image counts as defective.

    Attributes:
        pixel: of the final map.
        image: of the image score.
        images: number of normal images that the thresholds rest on.
    """

    pixel: float
    image: float
    images: int


@dataclass(frozen=True)
class Calibration:
    """Constants of one state of a model.

    Attributes:
        source: images that they come from: "held-out" normal images, or "training" images if none
            are held out; these score lower than new ones, which makes the thresholds too low.
        fusion_scale: brings the segmentor's probability to the reconstruction map's scale.
        normal: moments of normal maps by class.
        score_range: (low, high) of the final map by class, for drawing: the median of normal
            pixels, and the 99.9th percentile of pseudo-anomalous ones.
        thresholds: by class, at the configured false-positive rates; empty if none were set.
        step: of the state; 0 if unknown.
        checkpoint_scores: step -> `pseudo_anomaly_ap` of the checkpoints that this one was chosen
            from; empty if the newest was taken without comparison.
        weights: of the maps in a "weighted" final map; empty for other rules.
    """

    source: str
    fusion_scale: float
    normal: dict[str, NormalMaps]
    score_range: dict[str, tuple[float, float]]
    thresholds: dict[str, Thresholds]
    step: int = 0
    checkpoint_scores: dict[int, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)

    def final_map(self, maps: Maps, fusion: str, class_names: Sequence[str]) -> np.ndarray:
        """Fuses the model's maps [n, S, S] of images of `class_names`."""
        normal = [self.normal[name] for name in class_names]
        return final_map(maps, fusion, self.fusion_scale, normal, self.weights)

    def without_thresholds(self) -> "Calibration":
        """A copy without thresholds, for too few images to set them."""
        return replace(self, thresholds={})


@dataclass(frozen=True, eq=False)
class Probe:
    """A model's maps of n normal images, and of the same images with pseudo-anomalies.

    Attributes:
        normal, anomalous: the maps, float32 [n, S, S] each.
        masks: bool [n, S, S], of the pseudo-anomalies.
        class_ids: int [n], into `class_names`.
    """

    normal: Maps
    anomalous: Maps
    masks: np.ndarray
    class_ids: np.ndarray
    class_names: tuple[str, ...]

    def by_class(self) -> Iterator[tuple[str, Maps, Maps, np.ndarray]]:
        """Yields name, normal maps, anomalous maps and masks of each class."""
        for k, name in enumerate(self.class_names):
            own = self.class_ids == k
            normal, anomalous = (
                {key: values[own] for key, values in maps.items()}
                for maps in (self.normal, self.anomalous)
            )
            yield name, normal, anomalous, self.masks[own]

    def thinned(self) -> "Probe":
        """Every fourth row and column, for what is computed many times."""
        thin = lambda values: values[:, ::4, ::4]
        normal, anomalous = jax.tree.map(thin, (self.normal, self.anomalous))
        return replace(self, normal=normal, anomalous=anomalous, masks=thin(self.masks))


class NormalImages(NamedTuple):
    """Normal images to calibrate with, at least one per class.

    Attributes:
        source: "held-out" or "training".
        image_ids: int [n], their rows of the training set; None where they are held out of it.
    """

    images: ImageSet
    source: str
    image_ids: np.ndarray | None


def make_probe(
    maker: MapMaker, normal: NormalImages, pseudo: PseudoAnomalyConfig, seed: int
) -> Probe:
    """Maps normal images, and the same with pseudo-anomalies drawn from `seed`.

    Raises:
        UserError: a map holds NaN or infinity; the message names the image.
    """
    images = normal.images
    pictures, ids = np.asarray(images.images), images.class_ids
    keys = jax.random.split(jax.random.key(seed), len(pictures))
    damaged, masks = jax.jit(synthesize, static_argnums=3)(
        keys, pictures, np.roll(pictures, 1, 0), pseudo
    )
    intact = maker.maps(pictures, ids, normal.image_ids)
    anomalous = maker.maps(np.asarray(damaged).astype(np.uint8), ids, normal.image_ids)
    for maps in (intact, anomalous):
        for key, values in maps.items():
            check_finite(values, images.filenames, f"{key} map")
    return Probe(intact, anomalous, np.asarray(masks) > 0, ids, images.class_names)


def calibrate(probe: Probe, source: str, config: EvalConfig, step: int = 0) -> Calibration:
    """Computes the constants of the state that made `probe`.

    The reference takes (max + min) / 2 of the reconstruction maps of all test images, defects
    included, for the scale of the fusion; here pseudo-anomalies replace the defects.
    """
    maps = [m["reconstruction"] for m in (probe.normal, probe.anomalous) if "reconstruction" in m]
    scale = float((np.max(maps) + np.min(maps)) / 2) if maps else 0.0
    moments = {name: normal_maps(normal) for name, normal, _, _ in probe.by_class()}
    untuned = Calibration(source, scale, moments, {}, {}, step)
    weights = _weights(probe, untuned) if config.fusion == "weighted" else {}
    ranges, thresholds = {}, {}
    for name, normal, anomalous, masks in probe.by_class():
        final, damaged = (
            final_map(maps, config.fusion, scale, [moments[name]] * len(masks), weights)
            for maps in (normal, anomalous)
        )
        ranges[name] = float(np.median(final)), float(np.quantile(damaged, _DRAWING_QUANTILE))
        thresholds[name] = set_thresholds(final, config)
    return replace(untuned, score_range=ranges, thresholds=thresholds, weights=weights)


def _weights(probe: Probe, untuned: Calibration) -> dict[str, float]:
    """The weights of the maps that find the probe's pseudo-anomalies best, in steps of a quarter.

    Of equals, those with more of the memory; before any training, the memory alone.
    """
    if not untuned.step:
        return {"memory": 1.0}
    thin = probe.thinned()
    if not thin.masks.any():
        thin = probe
    if not thin.masks.any():
        warn("no image got a pseudo-anomaly to weigh the maps by: the memory's counts alone")
        return {"memory": 1.0}
    moments = next(iter(untuned.normal.values()))
    parts = [name for name, value in moments._asdict().items() if value is not None]
    candidates = [
        {name: share / _SHARES for name, share in zip(parts, shares, strict=True) if share}
        for shares in itertools.product(range(_SHARES + 1), repeat=len(parts))
        if sum(shares) == _SHARES
    ]
    candidates.sort(key=lambda weights: -weights.get("memory", 0.0))
    score = lambda weights: pseudo_anomaly_ap(thin, replace(untuned, weights=weights), "weighted")
    return max(candidates, key=score)


def set_thresholds(maps: np.ndarray, config: EvalConfig) -> Thresholds:
    """Sets the lowest thresholds that at most the configured share of pixels and images exceeds.

    Args:
        maps: final maps [n, S, S] of a class's normal images. With fewer than 1 / image_fpr images,
            the image threshold is the highest of their scores.
    """
    scores = image_scores(maps, config.image_pool)
    return Thresholds(
        _exceeded_by(maps.ravel(), config.pixel_fpr),
        _exceeded_by(scores, config.image_fpr),
        len(maps),
    )


def _exceeded_by(values: np.ndarray, share: float) -> float:
    allowed = math.floor(share * len(values))
    if allowed == len(values):
        return float(np.nextafter(values.min(), -np.inf))
    place = len(values) - 1 - allowed
    return float(np.partition(values, place)[place])


def spread_over(images: ImageSet, count: int) -> np.ndarray:
    """Rows of about `count` images, at least two per class if it has two, evenly over its files."""
    per_class, rows = max(2, count // len(images.class_names)), []
    for k in np.unique(images.class_ids):
        members = np.flatnonzero(images.class_ids == k)
        rows.append(members[np.unique(np.linspace(0, len(members) - 1, per_class).astype(int))])
    return np.concatenate(rows)


CHOICE = "mean pixel AP of pseudo-anomalies on normal images held out of training"


def pseudo_anomaly_ap(probe: Probe, calibration: Calibration, fusion: str) -> float:
    """Pixel AP of the final map on pseudo-anomalies, the plain mean over the classes, in 0..1.

    Each class is measured on its held-out normal images, with and without a pseudo-anomaly. The
    result ranks the states of one run; it says nothing about real defects.

    Args:
        calibration: of the same probe.

    Raises:
        UserError: no class has a pseudo-anomaly.
    """
    values = []
    for name, normal, anomalous, masks in probe.by_class():
        final = np.concatenate(
            [calibration.final_map(m, fusion, [name] * len(masks)) for m in (normal, anomalous)]
        )
        truth = np.concatenate([np.zeros_like(masks), masks])
        values.append(pixel_metrics(final, truth)[0]["pixel_ap"])
    defined = [value for value in values if value is not None]
    if not defined:
        raise UserError(
            "no held-out image got a pseudo-anomaly to choose a checkpoint by: raise data.holdout, "
            "or set eval.checkpoint to 'last'"
        )
    return float(np.mean(defined))
