"""Regions above a threshold, against what the eye sees."""

import numpy as np

from promptmad_jax.evaluation.metrics.regions import Region, find_regions


def test_area_centre_and_peak():
    anomaly_map = np.zeros((20, 30), np.float32)
    anomaly_map[2:4, 10:14] = 1.0
    anomaly_map[3, 13] = 3.0
    anomaly_map[10, 5] = 5.0
    anomaly_map[11, 6] = 4.0  # touches the other by a corner
    assert find_regions(anomaly_map, 0.5) == [
        Region(2, (5.5, 10.5), 5.0),
        Region(8, (11.5, 2.5), 3.0),
    ]


def test_the_threshold_itself_is_normal():
    assert find_regions(np.full((4, 4), 0.5, np.float32), 0.5) == []
    assert find_regions(np.full((4, 4), 0.5, np.float32), 0.4)[0].area == 16
