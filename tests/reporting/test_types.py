"""Defect types as colours, and the part of the report on them."""

import numpy as np
import pytest

from promptmad_jax.evaluation.class_maps import ClassMaps, TypeMaps
from promptmad_jax.evaluation.metrics.defect_types import DefectTypeEvaluator
from promptmad_jax.reporting.report import Report
from promptmad_jax.reporting.tables import format_types
from promptmad_jax.reporting.type_pictures import UNKNOWN_COLOUR, colour, paint, type_examples
from tests.reporting.report_cases import MANIFEST, evaluate

SIZE, NAMES = 32, ("dent", "rust <b>", "hole")


@pytest.fixture(scope="module")
def class_maps():
    """Two normal images, the second with a higher score; two dents; rust, partly unknown."""
    rng = np.random.default_rng(0)
    true = np.zeros((5, SIZE, SIZE), np.uint8)
    true[2:4, 4:12, 4:12], true[4, 20:, 20:], true[4, 26:, 26:] = 1, 2, 255
    predicted = true.copy()
    predicted[4] = np.where(true[4] > 0, 3, 0)
    return ClassMaps(
        "nut",
        tuple(f"{i}.png" for i in range(5)),
        ("good", "good", "dent", "dent", "rust"),
        np.asarray([0, 0, 1, 1, 1]),
        rng.integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8),
        true > 0,
        {"final": rng.random((5, SIZE, SIZE), np.float32)},
        image_scores=np.asarray([0.1, 0.2, 0.3, 0.5, 0.4]),
        types=TypeMaps(NAMES, predicted, true),
    )


def test_colours_tell_types_apart():
    colours = np.asarray([colour(k) for k in range(1, 25)], float)
    distance = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(24)
    assert distance.min() > 25 and colour(255) == UNKNOWN_COLOUR


def test_painting_leaves_normal_pixels(class_maps):
    image, ids = class_maps.images[4], class_maps.types.true[4]
    painted = paint(image, ids)
    assert np.array_equal(painted[ids == 0], image[ids == 0])
    expected = 0.35 * image[20, 20] + 0.65 * np.asarray(colour(2))
    np.testing.assert_allclose(painted[20, 20], expected, atol=1)
    assert painted.dtype == np.uint8


def test_examples_are_the_highest_scores_of_each_type(class_maps):
    examples = type_examples(class_maps)
    assert [one.filename for one in examples] == ["3.png", "4.png", "1.png"]
    seen = ["predicted as dent", "predicted as hole", "predicted as normal"]
    assert [one.explanation for one in examples] == seen


def test_the_page(class_maps, tmp_path):
    scores = np.eye(4)[np.where(class_maps.types.predicted == 255, 0, class_maps.types.predicted)]
    multi_type = {"words": {"dent": "a dent", "rust <b>": "rust <b>", "hole": "hole"}}
    for name in ("filtered", "unfiltered"):
        evaluator = DefectTypeEvaluator(name)
        evaluator.add("nut", [scores], class_maps.types.true, NAMES)
        multi_type[name] = evaluator.result()
    report = Report(tmp_path)
    report.add(class_maps)
    manifest = MANIFEST | {"trained_on_test_split": {"warning": "seen <in> training"}}
    result = evaluate(class_maps) | {"multi_type": multi_type}
    page = report.write(result, manifest).read_text(encoding="utf-8")
    page = page[page.index('<section id="types">') : page.index('<section id="run">')]
    assert page.count("<img") == 3 * 3 and "predicted as hole" in page
    assert "seen &lt;in&gt; training." in page
    assert "dent (“a dent”)" in page and "rust &lt;b&gt;" in page and "<b>rust <b>" not in page
    unsure = int(np.count_nonzero(class_maps.types.true == 2))
    assert f"rust &lt;b&gt; predicted as hole: {unsure} pixels" in page
    table = format_types(multi_type)
    assert "filtered" in table and "AUROC, defects" in table and "words" not in table
