"""Calibration on normal images, so that no metric depends on constants from the test set."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import numpy as np

from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.data.pseudo_anomaly.config import PseudoAnomalyConfig
from promptmad_jax.data.pseudo_anomaly.synthesis import synthesize
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.constants import Calibration
from promptmad_jax.evaluation.fusion import Maps, normal_maps
from promptmad_jax.evaluation.inference import MapMaker
from promptmad_jax.evaluation.metrics.metrics import check_finite, pixel_metrics
from promptmad_jax.evaluation.novelty import ClassGallery
from promptmad_jax.evaluation.thresholds import (
    Rates,
    normal_scores,
)
from promptmad_jax.runtime.console import track, warn
from promptmad_jax.runtime.errors import UserError

_DRAWING_QUANTILE = 0.999
# Weights of maps are tried in steps of 1 / _SHARES.
_SHARES = 4


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
        """Yields name, normal maps, anomalous maps and masks of each class that has images."""
        for k, name in enumerate(self.class_names):
            own = self.class_ids == k
            if not own.any():
                continue
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
    """Normal images to calibrate with.

    Attributes:
        source: what they are, in words: "held-out", "training", "enrolled".
        image_ids: int [n], the rows by which the memory knows them; None where it does not.
        comparable: they score as new normal images do.
    """

    images: ImageSet
    source: str
    image_ids: np.ndarray | None
    comparable: bool = True

    def select(self, rows: np.ndarray) -> "NormalImages":
        """Some of them."""
        ids = None if self.image_ids is None else self.image_ids[rows]
        return self._replace(images=self.images.select(rows), image_ids=ids)


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
    untuned = Calibration(source, scale, {}, {}, {}, step)
    moments = {name: normal_maps(normal) for name, normal, _, _ in probe.by_class()}
    weights = {}
    if config.fusion == "weighted":
        weights = _weights(probe, replace(untuned, normal=moments))
    return add_classes(replace(untuned, weights=weights), probe, config)


def add_classes(calibration: Calibration, probe: Probe, config: EvalConfig) -> Calibration:
    """Adds moments and ranges of the probe's classes; how maps are fused stays."""
    moments = {name: normal_maps(normal) for name, normal, _, _ in probe.by_class()}
    grown = replace(calibration, normal=calibration.normal | moments)
    ranges = {}
    for name, normal, anomalous, masks in probe.by_class():
        final, damaged = (
            grown.final_map(maps, config.fusion, [name] * len(masks))
            for maps in (normal, anomalous)
        )
        ranges[name] = float(np.median(final)), float(np.quantile(damaged, _DRAWING_QUANTILE))
    return replace(grown, score_range=calibration.score_range | ranges)


def add_thresholds(
    calibration: Calibration,
    maker: MapMaker,
    class_names: Sequence[str],
    sets: Sequence[NormalImages],
    config: EvalConfig,
) -> Calibration:
    """Scores normal images of classes and sets the thresholds of each that has some.

    Args:
        class_names: by id.

    Raises:
        UserError: a map holds NaN or infinity; the message names the image.
    """
    scores, gallery = {}, {}
    names = track(class_names, "setting thresholds from normal images")
    for k, name in enumerate(names):
        finals, descriptions, origins = [], [], []
        for images, source, image_ids, _ in sets:
            own = np.flatnonzero(images.class_ids == k)
            if not len(own):
                continue
            rows = None if image_ids is None else image_ids[own]
            pictures, ids = np.asarray(images.images[own]), np.full(len(own), k)
            maps, described = maker.described_maps(pictures, ids, rows)
            finals.append(calibration.final_map(maps, config.fusion, [name] * len(own)))
            check_finite(finals[-1], [images.filenames[i] for i in own], "final map")
            descriptions.append(described)
            origins.append(f"{len(own)} {source}")
        if finals:
            gallery[name] = ClassGallery(np.concatenate(descriptions))
            novelty = gallery[name].leave_one_out() if sum(map(len, finals)) > 1 else ()
            comparable = all(normal.comparable for normal in sets)
            scores[name] = normal_scores(
                np.concatenate(finals), config.image_pool, novelty, " + ".join(origins), comparable
            )
    return replace(calibration, scores=scores, gallery=gallery).with_rates(rates_of(config))


def rates_of(config: EvalConfig) -> Rates:
    """The configured rates."""
    return Rates(config.image_fpr, config.pixel_fpr, config.unknown_fpr)


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
