"""Connected defect regions, labelled image by image."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


def region_weights(masks: np.ndarray) -> tuple[np.ndarray, int]:
    """Weighs every defect pixel with 1 / area of its 8-connected region.

    Regions are never merged across images.

    Args:
      masks: bool [n, H, W].

    Returns:
      float64 [P], the weights of the defect pixels in the order of `scores[masks]`, and the
      number of regions, which is also the sum of the weights.
    """
    weights, count = [np.zeros(0)], 0
    for mask in masks:
        if mask.any():
            labels, regions = ndimage.label(mask, structure=EIGHT_NEIGHBOURS)
            inside = labels[mask]
            weights.append(1.0 / np.bincount(inside)[inside])
            count += regions
    return np.concatenate(weights), count


class Region(NamedTuple):
    """Attributes:
    area: pixels of the image. centre: (x, y) of its pixels' mean, pixels. peak: highest value.
    """

    area: int
    centre: tuple[float, float]
    peak: float


def find_regions(anomaly_map: np.ndarray, threshold: float) -> list[Region]:
    """Regions of float [H, W] where the map exceeds `threshold`, the highest peak first."""
    # Diagonals connect, as in the metrics.
    labels, count = ndimage.label(anomaly_map > threshold, EIGHT_NEIGHBOURS)
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
