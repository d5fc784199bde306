"""Regions that mark defects."""

import numpy as np

from promptmad_jax.evaluation.regions import find_regions


def two_peaks():
    values = np.zeros((20, 30), np.float32)
    values[4:8, 10:14], values[5, 11] = 8.0, 10.0
    values[15, 20:23] = 4.0
    return values


def test_regions_in_the_pixels_of_the_image():
    first, second = find_regions(two_peaks(), 3.0, 0.0, (40, 60))
    assert (first.area, first.peak, first.box) == (64, 10.0, (20, 8, 28, 16))
    assert first.centre == (23.5, 11.5) and first.share == 16 / 600
    assert second.box == (40, 30, 46, 32) and second.peak == 4.0
    x, y = np.array(first.polygon).T
    assert first.polygon[0] == first.polygon[-1]
    assert (x.min(), x.max(), y.min(), y.max()) == (19.5, 27.5, 7.5, 15.5)


def test_a_region_reaches_to_seven_tenths_of_its_own_peak():
    values = two_peaks()
    values[4, 10] = 6.9
    first, second = find_regions(values, 3.0, 0.0, values.shape)
    assert first.area == 15 and second.area == 3
    assert find_regions(values, 10.0, 0.0, values.shape) == []
    values[15, 20:23] = 9.0
    values[8:15, 12] = values[14, 12:21] = 8.5  # a bridge: one region
    assert len(find_regions(values, 3.0, 0.0, values.shape)) == 1


def test_ignored_pixels_belong_to_no_region():
    ignored = np.zeros((20, 30), bool)
    ignored[:10] = True
    (only,) = find_regions(two_peaks(), 3.0, 0.0, (20, 30), ignored)
    assert only.peak == 4.0
