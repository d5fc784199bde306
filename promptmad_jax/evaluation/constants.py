"""Constants from normal images that turn a model's maps into verdicts, and their way to JSON."""

import base64
import dataclasses
import datetime
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from promptmad_jax.data.ignored import Ignored
from promptmad_jax.evaluation.fusion import (
    SEGMENTATION_WEIGHT,
    Maps,
    Moments,
    NormalMaps,
    final_map,
)
from promptmad_jax.evaluation.novelty import Gallery
from promptmad_jax.evaluation.thresholds import (
    USUAL,
    NormalScores,
    Rates,
    Thresholds,
    by_hand,
    set_thresholds,
)

# With another one, ranges and thresholds of "standardized" maps do not fit.
_WEIGHT = {"segmentation_weight": float(SEGMENTATION_WEIGHT)}


class Change(NamedTuple):
    """An entry of the history of the thresholds: ISO time, command, and what it set."""

    time: str
    command: str
    what: str

    @classmethod
    def now(cls, command: str, what: str) -> "Change":
        """An entry of this second."""
        return cls(datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), command, what)


@dataclass(frozen=True)
class Calibration:
    """Constants of one state of a model.

    Attributes:
        source: images that scale, moments and weights come from: "held-out" normal images, or
            "training" images if none are held out.
        fusion_scale: brings the segmentor's probability to the reconstruction map's scale.
        normal: moments of normal maps by class.
        score_range: (low, high) of the final map by class, for drawing: the median of normal
            pixels, and the 99.9th percentile of pseudo-anomalous ones.
        thresholds: by class; empty if none were set.
        step: of the state; 0 if unknown.
        checkpoint_scores: step -> `pseudo_anomaly_ap` of the checkpoints that this one was chosen
            from; empty if the newest was taken without comparison.
        weights: of the maps in a "weighted" final map; empty for other rules.
        scores: by class, of the normal images that set the thresholds.
        rates: that the thresholds keep to.
        history: of the thresholds, oldest first.
        ignored: pixels that do not count, bool [S, S] by class; for classes that have some.
        gallery: descriptions of these images, to tell what is no picture of the class.
    """

    source: str
    fusion_scale: float
    normal: dict[str, NormalMaps]
    score_range: dict[str, tuple[float, float]]
    thresholds: dict[str, Thresholds]
    step: int = 0
    checkpoint_scores: dict[int, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    scores: dict[str, NormalScores] = field(default_factory=dict)
    rates: Rates = USUAL
    history: tuple[Change, ...] = field(default=(), compare=False)
    ignored: Ignored = field(default_factory=dict, compare=False, repr=False)
    gallery: Gallery = field(default_factory=dict, compare=False, repr=False)

    def final_map(self, maps: Maps, fusion: str, class_names: Sequence[str]) -> np.ndarray:
        """Fuses the model's maps [n, S, S] of images of `class_names`.

        Pixels that do not count have the normal level of their class.
        """
        normal = [self.normal[name] for name in class_names]
        final = final_map(maps, fusion, self.fusion_scale, normal, self.weights)
        if not self.ignored.keys() & set(class_names):
            return final
        masks = [self.ignored.get(name, np.zeros_like(final[0], bool)) for name in class_names]
        levels = np.float32([self.score_range[name][0] for name in class_names])
        return np.where(masks, levels[:, None, None], final)

    def ignoring(self, mask: np.ndarray) -> "Calibration":
        """A copy for which pixels, bool [S, S], do not count in any class, too."""
        masks = {name: self.ignored.get(name, False) | mask for name in self.normal}
        return replace(self, ignored=masks)

    def with_rates(self, rates: Rates) -> "Calibration":
        """A copy whose thresholds keep to other rates."""
        thresholds = {name: set_thresholds(scores, rates) for name, scores in self.scores.items()}
        return replace(self, thresholds=thresholds, rates=rates)

    def by_hand(self, values: Mapping[str, float]) -> "Calibration":
        """A copy with image thresholds of some classes set by hand."""
        given = {name: by_hand(self.thresholds[name], value) for name, value in values.items()}
        return replace(self, thresholds=self.thresholds | given)


def to_json(calibration: Calibration) -> dict[str, Any]:
    """The constants as JSON values, without the gallery."""
    values = dataclasses.asdict(replace(calibration, gallery={}, ignored={})) | _WEIGHT
    del values["gallery"], values["ignored"]
    for name in ("thresholds", "scores"):
        rows = getattr(calibration, name)
        values[name] = {class_name: row._asdict() for class_name, row in rows.items()}
    values["rates"] = calibration.rates._asdict()
    if calibration.ignored:
        values["ignored"] = {name: _packed(mask) for name, mask in calibration.ignored.items()}
    return values


def from_json(values: Mapping[str, Any], gallery: Gallery) -> Calibration:
    """The constants from JSON values; raises KeyError, TypeError or AttributeError if damaged."""
    normal = {
        name: NormalMaps(*(None if pair is None else Moments(*pair) for pair in pairs))
        for name, pairs in values["normal"].items()
    }
    return Calibration(
        values["source"],
        values["fusion_scale"],
        normal,
        {name: tuple(pair) for name, pair in values["score_range"].items()},
        {name: Thresholds(**_tuples(row)) for name, row in values["thresholds"].items()},
        values["step"],
        {int(step): score for step, score in values["checkpoint_scores"].items()},
        values["weights"],
        {name: NormalScores(**_tuples(row)) for name, row in values["scores"].items()},
        Rates(**values["rates"]),
        tuple(Change(*row) for row in values["history"]),
        {name: _unpacked(row) for name, row in values.get("ignored", {}).items()},
        gallery,
    )


def fits(values: Mapping[str, Any], fusion: str) -> bool:
    """Returns False if the constants fit only maps that were added up with another weight."""
    return _WEIGHT.items() <= values.items() or fusion != "standardized"


def _tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def _packed(mask: np.ndarray) -> list[str | int]:
    """A square mask as its width and its compressed bits."""
    return [len(mask), base64.b85encode(zlib.compress(np.packbits(mask).tobytes())).decode()]


def _unpacked(values: Sequence) -> np.ndarray:
    size, text = values
    packed = np.frombuffer(zlib.decompress(base64.b85decode(text)), np.uint8)
    return np.unpackbits(packed, count=size * size).reshape(size, size) > 0
