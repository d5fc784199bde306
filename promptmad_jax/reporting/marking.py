"""Pictures of what was found in an image: heat colours from the threshold up, and outlines."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from promptmad_jax.evaluation.regions import Region, find_regions, marking_levels
from promptmad_jax.evaluation.thresholds import Thresholds
from promptmad_jax.reporting.overlay import overlay

_OUTLINE, _EDGE = (90, 255, 255), (0, 0, 0)


def draw_verdict(
    image: np.ndarray,
    values: np.ndarray,
    score: float,
    thresholds: Thresholds | None,
    scale: tuple[float, float],
) -> np.ndarray:
    """Marks the regions of a defective image; one that is not above its threshold stays as it is.

    Args:
      image: uint8 [H, W, 3].
      values: its final map [H, W].
      thresholds: of the class; None colours the whole map on `scale`.
      scale: normal level of the map, and the end of a colour scale.

    Returns:
      uint8 [H, W, 3].
    """
    if thresholds is None:
        return overlay(image, values, *scale)
    if not score > thresholds.image:
        return image
    levels = marking_levels(thresholds, scale[0], score)
    return mark_regions(image, values, find_regions(values, *levels, values.shape), *levels)


def mark_regions(
    image: np.ndarray, values: np.ndarray, regions: Sequence[Region], level: float, normal: float
) -> np.ndarray:
    """Colours an image in its regions and wherever the map is above a level, and outlines them.

    Args:
      image: uint8 [H, W, 3].
      values: its map [H, W].
      level, normal: see `marking_levels`; the colours end at twice the level's height above normal.

    Returns:
      uint8 [H, W, 3].
    """
    inside = Image.new("1", image.shape[1::-1])
    for region in regions:
        ImageDraw.Draw(inside).polygon(region.polygon, fill=1)
    shown = np.where((values > level) | np.asarray(inside), values, normal)
    coloured = overlay(image, shown, *colour_range(level, normal))
    picture = Image.fromarray(coloured)
    width = max(1, round(min(picture.size) / 160))
    lines = ImageDraw.Draw(picture)
    for colour, extra in ((_EDGE, 2), (_OUTLINE, 0)):
        for region in regions:
            lines.line(region.polygon, colour, width + extra, "curve")
    return np.asarray(picture)


def colour_range(level: float, normal: float) -> tuple[float, float]:
    """The ends of the colour scale of marked regions."""
    return normal, normal + max(2 * (level - normal), 1e-6)
