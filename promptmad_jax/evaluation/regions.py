"""Regions of an anomaly map that mark its defects."""

from typing import NamedTuple

import contourpy
import numpy as np
from scipy import ndimage

from promptmad_jax.evaluation.metrics.regions import EIGHT_NEIGHBOURS
from promptmad_jax.evaluation.thresholds import Thresholds

# A region reaches down to this share of its peak's height above the normal level.
_HEIGHT = 0.7


class Region(NamedTuple):
    """A defective region, in the image's pixels.

    Attributes:
        area: pixels. share: of the image's pixels, 0..1.
        box: left, top, right, bottom; the last two exclusive.
        centre: (x, y), the mean of its pixels.
        peak: highest value of the map.
        polygon: (x, y) of its outline, the first point again at the end.
    """

    area: int
    share: float
    box: tuple[int, int, int, int]
    centre: tuple[float, float]
    peak: float
    polygon: tuple[tuple[float, float], ...]


def marking_levels(thresholds: Thresholds, normal: float, score: float) -> tuple[float, float]:
    """The threshold of the regions of a defective image, and the normal level below it.

    Args:
        normal: level of the class's normal pixels.
        score: of the image.
    """
    level = thresholds.image if thresholds.region is None else thresholds.region
    # A peak is at least as high as the score, an average: so every defective image has a region.
    level = min(level, float(np.nextafter(score, -np.inf)))
    return level, min(normal, level)


def find_regions(
    anomaly_map: np.ndarray,
    threshold: float,
    normal: float,
    size: tuple[int, int],
    ignored: np.ndarray | None = None,
) -> list[Region]:
    """Regions around the peaks of a map that exceed a threshold, the highest first.

    Every region is connected (diagonals connect) and holds what rises to 0.7 of the height of its
    peak above the normal level; peaks that an earlier region holds are part of it.

    Args:
        anomaly_map: float [h, w].
        threshold: of peaks.
        normal: the level of normal pixels, below the threshold.
        size: height and width of the image, which the map covers.
        ignored: bool [h, w], pixels that belong to no region.
    """
    values = np.where(ignored, -np.inf, anomaly_map) if ignored is not None else anomaly_map
    labels, count = ndimage.label(values > threshold, EIGHT_NEIGHBOURS)
    peaks = ndimage.maximum_position(values, labels, range(1, count + 1)) if count else []
    regions, taken = [], np.zeros(values.shape, bool)
    for peak in sorted(peaks, key=lambda place: -values[place]):
        if taken[peak]:
            continue
        level = normal + _HEIGHT * (float(values[peak]) - normal)
        parts, _ = ndimage.label((values >= level) & ~taken, EIGHT_NEIGHBOURS)
        own = parts == parts[peak]
        taken |= own
        regions.append(_region(own, float(values[peak]), size))
    return regions


def _region(own: np.ndarray, peak: float, size: tuple[int, int]) -> Region:
    scale = np.array([size[1] / own.shape[1], size[0] / own.shape[0]])  # x, y
    rows, columns = np.nonzero(own)
    first = np.floor(np.array([columns.min(), rows.min()]) * scale).astype(int)
    last = np.ceil((np.array([columns.max(), rows.max()]) + 1) * scale).astype(int)
    centre = (np.array([columns.mean(), rows.mean()]) + 0.5) * scale - 0.5
    area = max(1, round(len(rows) * float(scale.prod())))
    return Region(
        area,
        len(rows) / own.size,
        (*map(int, first), *map(int, last)),
        (round(float(centre[0]), 1), round(float(centre[1]), 1)),
        peak,
        _outline(own, scale),
    )


def _outline(own: np.ndarray, scale: np.ndarray) -> tuple[tuple[float, float], ...]:
    """The longest contour of a mask."""
    lines = contourpy.contour_generator(z=np.pad(own.astype(np.float32), 1)).lines(0.5)
    # The padding moves all by 1; pixel centres of the map lie at half pixels of the image's scale.
    points = (max(lines, key=len) - 0.5) * scale - 0.5
    return tuple((round(float(x), 1), round(float(y), 1)) for x, y in points)
