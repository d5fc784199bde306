"""Connected regions of an anomaly map above its threshold."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

_NEIGHBOURS = np.ones((3, 3), int)  # diagonals connect, as in the metrics


class Region(NamedTuple):
    """Attributes:
    area: pixels of the image. centre: (x, y) of its pixels' mean, pixels. peak: highest value.
    """

    area: int
    centre: tuple[float, float]
    peak: float


def find_regions(anomaly_map: np.ndarray, threshold: float) -> list[Region]:
    """Regions of float [H, W] where the map exceeds `threshold`, the highest peak first."""
    labels, count = ndimage.label(anomaly_map > threshold, _NEIGHBOURS)
    if not count:
        return []
    rows, columns = np.nonzero(labels)
    owner, values = labels[rows, columns] - 1, anomaly_map[rows, columns]
    area = np.bincount(owner, minlength=count)
    x, y = (np.bincount(owner, axis, count) / area for axis in (columns, rows))
    peak = np.full(count, -np.inf)
    np.maximum.at(peak, owner, values)
    return [
        Region(int(area[i]), (round(float(x[i]), 1), round(float(y[i]), 1)), float(peak[i]))
        for i in np.argsort(-peak, kind="stable")
    ]
