"""What the first screen says: defects found, false alarms, and warnings."""

import dataclasses

import pytest

from promptmad_jax.evaluation.proportion import Proportion
from promptmad_jax.reporting.decisions import all_decisions, class_decisions, rounded
from promptmad_jax.reporting.warnings import run_warnings
from tests.reporting.report_cases import (
    MANIFEST,
    Page,
    evaluate,
    make_class,
    with_final,
    write_report,
)

THRESHOLDS = {"nut": (0.9, 0.4), "tile": (2.0, 9.0)}


@pytest.fixture(scope="module")
def result():
    """All of `nut` raises an alarm, nothing of `tile`."""
    result = evaluate(make_class("nut"), make_class("tile"), thresholds=THRESHOLDS)
    rates = {"rate": 0.048, "interval": [0.001, 0.17], "comparable": True}
    classes = {"nut": rates | {"images": 20}, "tile": rates | {"images": 3, "rate": None}}
    calibrated = {"image_fpr": 0.05, "pixel_fpr": 0.01, "classes": classes}
    result["protocol"]["calibrated"] = calibrated
    return result


def test_intervals_are_those_of_clopper_and_pearson():
    low, high = Proportion(12, 21).interval
    assert (low, high) == (pytest.approx(0.3402, abs=1e-4), pytest.approx(0.7818, abs=1e-4))
    assert Proportion(0, 20).interval == (0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert Proportion(20, 20).interval == (pytest.approx(0.025 ** (1 / 20)), 1)
    assert [
        rounded(share) for share in (0, 1e-5, 0.004, 0.5714, 0.998, 1)
    ] == "0 0 0.4 57 99.8 100".split()


def test_sentences(result):
    nut, tile = class_decisions(result).values()
    assert nut.sentence == (
        "100 % of defects found (7 of 7; 95 % interval 59 to 100 %), 100 % false alarms (4 of 4; "
        "95 % interval 40 to 100 %), thresholds from 20 normal images"
    )
    assert (nut.promise, tile.promise) == ("expected 0.1 to 17 %", "")
    assert (tile.found, tile.alarms) == (Proportion(0, 7), Proportion(0, 4))
    both = all_decisions(result)
    assert both.found == Proportion(7, 14) and both.alarms == Proportion(4, 8)
    assert both.sentence.endswith("from 3 to 20 normal images per class")
    plain = evaluate(make_class("nut", defective=0), thresholds=THRESHOLDS)
    assert class_decisions(plain)["nut"].sentence.startswith("no defect to find, 100 % false")
    untested = dataclasses.replace(nut, found=None, alarms=None).sentence
    assert untested == (
        "no test image, expected 0.1 to 17 % false alarms, thresholds from 20 normal images"
    )


def test_warnings(result):
    few, images, pixels = run_warnings(result, MANIFEST)
    assert few.startswith("too few normal images") and few.endswith("20 per class (tile 3)")
    assert images == "more good images raise an alarm than the 5 % asked for: nut 100 %"
    assert "1 % asked for: nut" in pixels and "tile" not in pixels


@pytest.mark.parametrize(
    ("weights", "step", "words"),
    [
        ("random", 4, "mean nothing: 4 training"),
        ("random", 500, "random, so"),
        ("a", 4, "only some"),
    ],
)
def test_warnings_of_weights_and_steps(weights, step, words):
    result = evaluate(make_class("nut"))
    assert run_warnings(result, MANIFEST) == []
    result["protocol"]["step"] = step
    config = MANIFEST["config"] | {"backbone": {"weights": weights}}
    warnings = run_warnings(result, MANIFEST | {"config": config, "train_images": 100})
    assert words in warnings[-1 if weights == "a" else 0]


def test_a_training_that_helps_less_than_its_memory():
    nut = make_class("nut")
    result = evaluate(with_final(nut, -nut.maps["final"]))
    result["protocol"] |= {"memory": "64 patches", "step": 0}
    result["maps"]["memory"] = {"mean": dict.fromkeys(result["mean"], 1.0)}
    assert "nothing is trained" in run_warnings(result, {})[0]
    result["protocol"]["step"] = 500
    assert "worse than its memory alone" in run_warnings(result, {})[0]


def test_the_page_answers_first(tmp_path):
    text, *_ = write_report(tmp_path, make_class("nut"), make_class("tile"), thresholds=THRESHOLDS)
    words = Page(text).text
    answer = words.index("50 % of defects found (7 of 14; 95 % interval 23 to 77 %)")
    assert answer < words.index("Mean over the classes") < words.index("Worst class")
    assert 'class="banner"' not in text
    assert ">false alarm<" in text and "worst" not in words[answer:].replace("Worst class", "")
