"""The fusion rules against their formulas, and the constants' way to disk and back."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from promptmad_jax.commands import calibrate as command
from promptmad_jax.evaluation.calibration import Probe, calibrate
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.constants import Calibration
from promptmad_jax.evaluation.fusion import Moments, NormalMaps, log_odds, normal_maps
from promptmad_jax.evaluation.novelty import ClassGallery
from promptmad_jax.evaluation.thresholds import NormalScores, Rates, Thresholds, normal_scores
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.errors import UserError

NAMES = ["bolt", "tile", "bolt"]
CALIBRATION = Calibration(
    "held-out",
    3.0,
    {
        "bolt": NormalMaps(Moments(1.0, 0.5), Moments(-4.0, 2.0), Moments(0.5, 2.0)),
        "tile": NormalMaps(Moments(2.0, 0.25), Moments(-6.0, 1.0), Moments(1.0, 0.25)),
    },
    {"bolt": (0.0, 1.0), "tile": (0.5, 2.0)},
    {"bolt": Thresholds(1.5, 1.25, 3), "tile": Thresholds(2.5, 2.25, 1)},
    step=7,
    checkpoint_scores={5: 0.25, 7: 0.5},
    weights={"memory": 0.75, "segmentation": 0.25},
    scores={"bolt": NormalScores("3 held-out", (1.0, 1.25), (1.5, 2.0), (), (0.5,), True)},
    gallery={"bolt": ClassGallery(np.eye(3, 8, dtype=np.float32))},
)


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    return {
        "reconstruction": rng.uniform(0, 4, (3, 8, 8)).astype(np.float32),
        "coarse": rng.uniform(size=(3, 8, 8)).astype(np.float32),
        "refined": rng.uniform(0.01, 0.99, (3, 8, 8)).astype(np.float32),
    }


def test_one_part_alone(maps):
    assert CALIBRATION.final_map(maps, "reconstruction", NAMES) is maps["reconstruction"]
    assert CALIBRATION.final_map(maps, "segmentor", NAMES) is maps["refined"]
    del maps["refined"]
    assert CALIBRATION.final_map(maps, "segmentor", NAMES) is maps["coarse"]


def test_calibrated_and_image_local(maps):
    r, p = maps["reconstruction"], maps["refined"]
    found = CALIBRATION.final_map(maps, "calibrated", NAMES)
    np.testing.assert_allclose(found, r / 2 + 1.5 * p, rtol=1e-6)
    found = CALIBRATION.final_map(maps, "image_local", NAMES)
    for i in range(3):
        expected = r[i] / 2 + (r[i].max() + r[i].min()) / 4 * p[i]
        np.testing.assert_allclose(found[i], expected, rtol=1e-6)
        alone = {name: one[i : i + 1] for name, one in maps.items()}
        np.testing.assert_array_equal(
            CALIBRATION.final_map(alone, "image_local", NAMES[i : i + 1])[0], found[i]
        )


def test_standardized(maps):
    found = CALIBRATION.final_map(maps, "standardized", NAMES)
    r, p = maps["reconstruction"].astype(np.float64), maps["refined"].astype(np.float64)
    odds = np.log(p / (1 - p))
    bolt = (r - 1) / 0.5 + 0.5 * (odds + 4) / 2
    tile = (r - 2) / 0.25 + 0.5 * (odds + 6)
    np.testing.assert_allclose(found, [bolt[0], tile[1], bolt[2]], rtol=1e-4, atol=1e-4)


def test_weighted_adds_parts_in_standard_deviations(maps):
    maps["memory"], r = maps.pop("reconstruction"), maps["coarse"]
    maps["corrected"] = r
    found = CALIBRATION.final_map(maps, "weighted", NAMES)
    m = maps["memory"]
    np.testing.assert_allclose(found[0], 0.75 * (m[0] - 0.5) / 2 + 0.25 * (r[0] + 4) / 2, rtol=1e-5)
    np.testing.assert_allclose(found[1], 0.75 * (m[1] - 1) * 4 + 0.25 * (r[1] + 6), rtol=1e-5)


def test_pixels_that_do_not_count_have_the_normal_level(maps, tmp_path):
    mask = np.zeros((8, 8), bool)
    mask[:, 5] = True
    some = replace(CALIBRATION, ignored={"tile": mask})
    found = some.final_map(maps, "reconstruction", NAMES)
    np.testing.assert_array_equal(found[[0, 2]], maps["reconstruction"][[0, 2]])
    assert (found[1][mask] == 0.5).all()
    np.testing.assert_array_equal(found[1][~mask], maps["reconstruction"][1][~mask])
    assert some.final_map(maps, "reconstruction", ["bolt"] * 3) is maps["reconstruction"]
    files = Workdir(str(tmp_path))
    files.write_calibration(some.ignoring(mask.T))
    ignored = files.read_calibration().ignored
    np.testing.assert_array_equal(ignored["tile"], mask | mask.T)
    np.testing.assert_array_equal(ignored["bolt"], mask.T)


@pytest.mark.parametrize(
    ("step", "good", "expected"),
    [(0, "corrected", "memory"), (9, "corrected", "segmentation"), (9, "memory", "memory")],
)
def test_weights_are_those_that_find_pseudo_anomalies(step, good, expected):
    """The map that marks them gets all weight; without any training it is the memory's."""
    rng = np.random.default_rng(0)
    noise = lambda: rng.normal(size=(4, 64, 64)).astype(np.float32)
    masks = np.zeros((4, 64, 64), bool)
    masks[:, 16:48, 16:48] = True
    names = ("memory", "corrected", "reconstruction")
    normal, anomalous = ({name: noise() for name in names} for _ in range(2))
    anomalous[good] = anomalous[good] + 2 * masks
    probe = Probe(normal, anomalous, masks, np.array([0, 0, 1, 1]), ("bolt", "tile"))
    found = calibrate(probe, "held-out", EvalConfig(fusion="weighted", image_pool=2), step)
    assert max(found.weights, key=found.weights.get) == expected
    assert sum(found.weights.values()) == 1 and (step or found.weights == {"memory": 1.0})


def test_log_odds_are_finite_and_keep_the_order():
    p = np.array([0, 1e-30, 1e-6, 0.5, 1 - 1e-6, 1], np.float32)
    odds = log_odds(p)
    assert np.isfinite(odds).all() and (np.diff(odds) >= 0).all() and odds[3] == 0


def test_unknown_rule(maps):
    with pytest.raises(ValueError, match="'sum'"):
        CALIBRATION.final_map(maps, "sum", NAMES)


def test_normal_maps_of_a_model_without_a_segmentor(maps):
    found = normal_maps({"reconstruction": maps["reconstruction"]})
    assert found.segmentation is None
    np.testing.assert_allclose(found.reconstruction.mean, maps["reconstruction"].mean(), rtol=1e-6)
    assert normal_maps({"reconstruction": np.ones((1, 4, 4))}).reconstruction.deviation == 1e-6


def test_to_disk_and_back(tmp_path):
    files = Workdir(str(tmp_path))
    files.write_calibration(CALIBRATION)
    found = files.read_calibration()
    assert found == CALIBRATION
    np.testing.assert_array_equal(found.gallery["bolt"].descriptions, np.eye(3, 8))
    assert json.loads((tmp_path / "calibration.json").read_text())["step"] == 7


def test_thresholds_are_set_anew_and_by_hand(tmp_path, capsys):
    files = Workdir(str(tmp_path))
    images = np.random.default_rng(0).normal(size=(30, 4, 4)).astype(np.float32)
    scores = {"bolt": normal_scores(images, 1, (), "30 training", True)}
    files.write_calibration(replace(CALIBRATION, scores=scores).with_rates(Rates(0.1, 0.1, 0.1)))
    command.calibrate(str(tmp_path), {}, [])
    assert "9.7 %" in capsys.readouterr().out and not files.read_calibration().history
    command.calibrate(str(tmp_path), {"image": 0.2}, ["Bolt=2.5"])
    found = files.read_calibration()
    assert found.rates == Rates(0.2, 0.1, 0.1) and found.thresholds["bolt"].image == 2.5
    assert found.thresholds["bolt"].rate is None
    assert found.history[-1].what == "image_fpr=0.2 pixel_fpr=0.1 unknown_fpr=0.1 bolt=2.5"
    command.calibrate(str(tmp_path), {"image": 0.01}, [])
    assert "1 % asked, but 30 normal images support no less than 3.2 %" in capsys.readouterr().err
    assert files.read_calibration().thresholds["bolt"].image == max(scores["bolt"].image)


@pytest.mark.parametrize(
    ("rates", "given", "message"),
    [
        ({"image": 1.5}, [], "--image_fpr=1.5: it must be above 0 and below 1"),
        ({}, ["bolts=1"], "with a class of bolt, tile; did you mean bolt?"),
        ({}, ["bolt=much"], "'much' is no number"),
    ],
)
def test_mistakes_leave_the_thresholds(tmp_path, rates, given, message):
    files = Workdir(str(tmp_path))
    files.write_calibration(CALIBRATION)
    with pytest.raises(UserError, match=re.escape(message)):
        command.calibrate(str(tmp_path), rates, given)
    assert files.read_calibration() == CALIBRATION


def test_a_gallery_of_other_constants_is_refused(tmp_path):
    files = Workdir(str(tmp_path))
    files.write_calibration(CALIBRATION)
    (tmp_path / "normal_images.npz").write_bytes(b"other")
    with pytest.raises(UserError, match=r"normal_images\.npz is missing or does not belong"):
        files.read_calibration()


def test_calibration_of_an_older_version(tmp_path):
    (tmp_path / "calibration.json").write_text('{"fusion_scale": 1.0, "score_range": {}}')
    with pytest.raises(UserError, match=r"calibration\.json.*older.*promptmad evaluate"):
        Workdir(str(tmp_path)).read_calibration()
