"""Compatibility modes: metrics as other code bases define them, one block per mode."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.compat.figures import (
    binned,
    f1_max_of,
    figures_of_scores,
    mean_top_percent,
    plain_max,
    pro,
    trapezoid_ap,
)
from promptmad_jax.evaluation.compat.onenip import OneNipFusion, ResizedMaskLabel
from promptmad_jax.evaluation.compat.original_size import OriginalSize
from promptmad_jax.evaluation.metrics.blocks import Block, ClassScores
from promptmad_jax.evaluation.metrics.exact import Reasons, Values
from promptmad_jax.evaluation.metrics.metrics import IMAGE_METRICS, PIXEL_METRICS
from promptmad_jax.evaluation.scratch import Keep
from promptmad_jax.runtime.processes import Communicator

DEFAULT_MODES = ("onenip_fusion", "resized_mask_label")
# N is a number from 2 to 100000.
COMPAT_MODES = {
    "onenip_fusion": "half the reconstruction map plus half the segmentor's, scaled by the middle "
    "of the reconstruction maps of the whole test set; label of resized_mask_label",
    "resized_mask_label": "an image is defective where its resized mask is not empty",
    "plain_max": "the image score is the largest pixel",
    "mean_top_1pct": "the image score is the mean of the highest 1 % of the pixels",
    "trapezoid_ap": "AP is the area below the precision-recall points joined by straight lines",
    "f1max_N": "F1-max over N evenly spaced thresholds from the smallest to the largest score",
    "pro_N": "AUPRO from N evenly spaced thresholds, over the false-positive rates below 0.3 "
    "stretched to 0..1",
    "bins_N": "pixel scores in N equal bins from the smallest to the largest of the class",
    "original_size": "pixels at the size of the files, maps enlarged bilinearly",
    "size_N": "at N x N pixels: masks of the files resized with nearest, maps enlarged bilinearly",
}
_NOT_THERE = {
    "mask_127": "prepared data sets keep only whether a mask is above 0; the metrics agree if "
    "masks hold only 0 and 255"
}


def check_mode(name: str) -> None:
    """Raises ValueError for an unknown compat mode, naming the known ones."""
    if name in _NOT_THERE:
        raise ValueError(f"compat mode {name!r} is not available: {_NOT_THERE[name]}")
    pattern, count = _split(name)
    if pattern not in COMPAT_MODES or pattern.endswith("_N") != (count is not None):
        known = ", ".join(COMPAT_MODES)
        raise ValueError(f"compat mode {name!r} is unknown; known: {known} (N: 2 to 100000)")


def describe_mode(name: str) -> str:
    """The definition of a mode in words."""
    pattern, count = _split(name)
    return COMPAT_MODES[pattern].replace(" N ", f" {count} ")


def needs_original_masks(names: Sequence[str]) -> bool:
    """Returns True if one of the modes measures the masks of the files."""
    return any(_split(name)[0] in ("original_size", "size_N") for name in names)


def _split(name: str) -> tuple[str, int | None]:
    """The key of `COMPAT_MODES` and N or None: bins_50 gives bins_N and 50."""
    found = re.fullmatch(r"(bins|f1max|pro|size)_([1-9]\d*)", name)
    if found is None or not 2 <= int(found[2]) <= 100_000:
        return name, None
    return f"{found[1]}_N", int(found[2])


class Mode(Protocol):
    """Collects the classes of a block.

    Attributes:
      left_out: the reason why the block is left out; empty if it is not.
    """

    left_out: str

    def add(self, class_maps: ClassMaps, scored: ClassScores) -> None:
        """Adds a class and its scored final map; all processes call this together."""
        ...

    def result(self) -> dict:
        """The block of all classes; all processes call this together."""
        ...


class ClassByClass:
    """A mode whose metrics need the final map of one class at a time."""

    left_out = ""

    def __init__(
        self, metrics: Sequence[str], figures: Callable[[ClassScores], tuple[Values, Reasons]]
    ):
        self._block, self._figures = Block(metrics), figures

    def add(self, class_maps: ClassMaps, scored: ClassScores) -> None:
        """See `Mode`."""
        self._block.add(class_maps.class_name, *self._figures(scored))

    def result(self) -> dict:
        """See `Mode`."""
        return self._block.result()


def make_mode(name: str, pool: int, limit: float, keep: Keep, communicator: Communicator) -> Mode:
    """Builds a mode of `EvalConfig.compat`.

    Args:
      pool, limit: `image_pool` and `aupro_limit` of the configuration.
      keep: stores an array until the end; all processes call it together.
    """
    pattern, count = _split(name)
    match pattern:
        case "onenip_fusion":
            return OneNipFusion(pool, limit, keep, communicator)
        case "resized_mask_label":
            return ResizedMaskLabel(communicator)
        case "original_size" | "size_N":
            return OriginalSize(limit, communicator, count)
    metrics, figures = {
        "plain_max": (IMAGE_METRICS, partial(figures_of_scores, score=plain_max)),
        "mean_top_1pct": (IMAGE_METRICS, partial(figures_of_scores, score=mean_top_percent)),
        "trapezoid_ap": (("image_ap", "pixel_ap"), trapezoid_ap),
        "f1max_N": (("image_f1max", "pixel_f1max"), partial(f1_max_of, count=count)),
        "pro_N": (("pixel_aupro",), partial(pro, count=count)),
        "bins_N": (PIXEL_METRICS, partial(binned, count=count, limit=limit)),
    }[pattern]
    return ClassByClass(metrics, figures)
