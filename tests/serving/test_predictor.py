"""Class names as people ask for them."""

from dataclasses import replace

import numpy as np
import pytest

from promptmad_jax.evaluation.constants import Calibration
from promptmad_jax.evaluation.thresholds import Thresholds
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving.predictor import ClassPredictor
from promptmad_jax.serving.result import make_result


@pytest.fixture
def predictor():
    return ClassPredictor(None, ("auto", "bracket", "Gehäuse"), None, "calibrated", 16)


@pytest.mark.parametrize("name", ["bracket", "Bracket", "class:auto", "nearest", "geha\u0308use"])
def test_names_that_are_understood(predictor, name):
    predictor.check_class(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("auto", "has a class called 'auto', which is also .* give class:auto or nearest"),
        ("braket", "no class 'braket'; it has auto, bracket, Gehäuse .did you mean bracket"),
        ("", "no class ''"),
    ],
)
def test_others_are_refused_with_the_way_out(predictor, name, message):
    with pytest.raises(UserError, match=message):
        predictor.check_class(name)


class Brightness:
    """The red channel as the map of the reconstruction."""

    image_size = 16

    def described_maps(self, images, class_ids):
        return {"reconstruction": images[..., 0].astype(np.float32)}, np.zeros((len(images), 3))


def test_settings_of_the_user_reach_scores_and_verdicts():
    known = {"bolt": Thresholds(90.0, 90.0, 10), "nut": Thresholds(90.0, 90.0, 10)}
    ranges = {"bolt": (10.0, 99.0), "nut": (10.0, 99.0)}
    calibration = Calibration("held-out", 1.0, dict.fromkeys(known), ranges, known)
    plain = ClassPredictor(Brightness(), tuple(known), calibration, "reconstruction", 1)
    image, mask = np.full((32, 32, 3), 80, np.uint8), np.zeros((8, 8), bool)
    image[:16], mask[:4] = 100, True
    score = lambda predictor: predictor([image], "bolt")[0].score
    assert score(plain) == 100
    changed = plain.adjusted(["Bolt=70"], mask)
    assert score(changed) == pytest.approx(80, abs=5) and score(plain) == 100
    verdict = lambda predictor, name: make_result(predictor([image], name)[0], 32, 32).verdict
    assert [verdict(changed, name) for name in known] == ["defective", "normal"]
    assert [verdict(plain, name) for name in known] == ["defective", "defective"]
    with pytest.raises(UserError, match="'high' is no number"):
        plain.adjusted(["bolt=high"], None)
    with pytest.raises(UserError, match="has no thresholds"):
        ClassPredictor(None, (), replace(calibration, thresholds={}), "", 1).adjusted(["a=1"], None)
