"""Connected defect regions, labelled image by image."""

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
