"""The quality of a state on held-out images, against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from promptmad_jax.evaluation.calibration import Probe, calibrate, pseudo_anomaly_ap
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.runtime.errors import UserError

CONFIG = EvalConfig(image_pool=1)
IDS = np.array([0, 1, 0, 1, 1])


def make_probe(masks):
    rng = np.random.default_rng(0)
    draw = lambda: {
        key: rng.random(masks.shape, np.float32) for key in ("reconstruction", "coarse")
    }
    normal, anomalous = draw(), draw()
    anomalous["coarse"] += masks * np.float32(0.3)
    return Probe(normal, anomalous, masks, IDS, ("bolt", "tile"))


def final(maps, scale):
    return 0.5 * maps["reconstruction"] + 0.5 * scale * maps["coarse"]


def squares():
    masks = np.zeros((5, 12, 12), bool)
    masks[:, 2:5, 3:7] = True
    return masks


def test_mean_over_classes_of_normal_and_pseudo_anomalous_images_together():
    probe = make_probe(squares())
    calibration = calibrate(probe, "held-out", CONFIG, 30)
    assert calibration.step == 30
    expected = []
    for k in range(2):
        scores = np.concatenate(
            [
                final(maps, calibration.fusion_scale)[k == IDS]
                for maps in (probe.normal, probe.anomalous)
            ]
        )
        truth = np.concatenate([np.zeros_like(squares()), squares()])[np.tile(k == IDS, 2)]
        expected.append(average_precision_score(truth.ravel(), scores.ravel()))
    found = pseudo_anomaly_ap(probe, calibration, "calibrated")
    assert found == pytest.approx(np.mean(expected), abs=1e-6)
    assert 0.05 < found < 0.9


def test_classes_without_a_pseudo_anomaly_do_not_count():
    masks = squares()
    masks[IDS == 1] = False
    probe = make_probe(masks)
    calibration = calibrate(probe, "held-out", CONFIG)
    scores = np.concatenate(
        [
            final(maps, calibration.fusion_scale)[IDS == 0]
            for maps in (probe.normal, probe.anomalous)
        ]
    )
    truth = np.concatenate([np.zeros_like(masks), masks])[np.tile(IDS == 0, 2)]
    expected = average_precision_score(truth.ravel(), scores.ravel())
    assert pseudo_anomaly_ap(probe, calibration, "calibrated") == pytest.approx(expected, abs=1e-6)
    probe = make_probe(np.zeros_like(masks))
    with pytest.raises(UserError, match=r"no held-out image .* checkpoint by: raise data\.holdout"):
        pseudo_anomaly_ap(probe, calibrate(probe, "held-out", CONFIG), "calibrated")
