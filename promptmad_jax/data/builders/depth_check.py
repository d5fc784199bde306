"""Checks of a class's images as scaled to 8 bits."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from promptmad_jax.data.builders.records import Problem
from promptmad_jax.data.levels import Levels, Values

_BLACK = 20
_WAY_OUT = "kept; --bit_depth=N sets the range"


def depth_problems(
    class_name: str, train: Sequence[Values], values: Iterable[Values], levels: Levels | None
) -> Iterator[Problem]:
    """Names a class whose values are clipped, or whose training images come out almost black."""
    clipped = [image for image in values if levels is not None and levels.exceeded(image)]
    if clipped:
        low, high = min(image.low for image in clipped), max(image.high for image in clipped)
        reason = f"{len(clipped)} images hold values {low:g} to {high:g}, clipped to {levels}"
        yield Problem(class_name, "clipped", reason, _WAY_OUT)
    if train and all(_bright(image, levels) < _BLACK for image in train):
        reason = f"all training images are almost black, below {_BLACK} of 255"
        yield Problem(class_name, "dark", reason, _WAY_OUT if levels else "kept")


def _bright(image: Values, levels: Levels | None) -> float:
    if image.kind == "8-bit" or levels is None:
        return image.bright
    return float(levels.scale(np.asarray(image.bright)))
