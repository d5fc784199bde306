"""Merging the results of several prompts."""

import json

import numpy as np
import pytest

from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.protocol import Evaluator
from promptmad_jax.evaluation.spread import spread
from promptmad_jax.reporting.tables import format_table
from tests.evaluation.classes import make_class


def evaluate(seed, name="tile", defective=3, thresholds=None):
    with Evaluator(EvalConfig(), thresholds=thresholds) as evaluator:
        evaluator.add(make_class(name, seed, defective=defective))
        return evaluator.result()


def test_statistics_of_every_figure():
    results = [evaluate(seed, thresholds={"tile": (1.0, 0.6)}) for seed in (1, 2, 3)]
    merged = spread(results)
    assert merged["count"] == 3
    assert json.loads(json.dumps(merged)) == merged
    paths = (
        ("mean", "pixel_ap"),
        ("pooled", "image_ap"),
        ("classes", "tile", "pixel_aupro_05"),
        ("maps", "refined", "classes", "tile", "pixel_auroc"),
        ("compat", "onenip_fusion", "mean", "pixel_ap"),
        ("thresholds", "mean", "pixel_iou"),
    )
    for path in paths:
        values, found = results, merged
        for key in path:
            values, found = [value[key] for value in values], found[key]
        assert found == {
            "mean": pytest.approx(np.mean(values), abs=1e-15),
            "std": pytest.approx(np.std(values, ddof=1), abs=1e-15),
            "min": min(values),
            "max": max(values),
            "defined": 3,
        }
    text = format_table(results[0] | {"prompts": merged})
    assert "mean of 3 prompts" in text and "std of 3 prompts" in text


def test_undefined_values_and_a_single_result():
    merged = spread([evaluate(1, defective=0)])
    assert merged["mean"]["pixel_ap"] == {
        "mean": None,
        "std": None,
        "min": None,
        "max": None,
        "defined": 0,
    }
    one = spread([evaluate(1)])["mean"]["pixel_ap"]
    assert one["std"] is None
    assert one["min"] == one["max"] == one["mean"]


def test_results_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="no results"):
        spread([])
    with pytest.raises(ValueError, match="differ in form"):
        spread([evaluate(1), evaluate(1, name="screw")])
