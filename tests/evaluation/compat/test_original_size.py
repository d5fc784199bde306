"""Figures at the size of the files."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow_datasets as tfds

import promptmad_jax.data.builders  # noqa: F401  (registers the builders)
from promptmad_jax.data.preprocess import resize_image
from promptmad_jax.evaluation.compat.modes import needs_original_masks
from promptmad_jax.evaluation.compat.original_size import OriginalMasks, enlarge
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.metrics import metrics
from promptmad_jax.evaluation.protocol import Evaluator
from tests.data.image_trees import spot, write_class
from tests.evaluation.classes import make_class

PROTOCOL = EvalConfig(compat=("original_size",))


def evaluate(class_maps):
    with Evaluator(PROTOCOL) as evaluator:
        evaluator.add(class_maps)
        return evaluator.result()


def test_maps_are_enlarged_to_masks_of_any_size():
    tile = make_class("tile", 1)
    shapes = [(24, 24), (30, 50), (48, 24), (24, 24), (50, 31), (72, 60)]
    columns = [np.minimum(np.arange(w) * 24 // w, 23) for _, w in shapes]
    rows = [np.minimum(np.arange(h) * 24 // h, 23) for h, _ in shapes]
    masks = tuple(
        mask[np.ix_(row, column)]
        for mask, row, column in zip(tile.masks, rows, columns, strict=True)
    )
    result = evaluate(replace(tile, original_masks=masks))
    enlarged = [enlarge(m, s) for m, s in zip(tile.maps["final"], shapes, strict=True)]
    # One row of pixels an image has the same regions only if the regions are one pixel wide, so
    # the reference compares what does not depend on regions.
    flat_maps = np.concatenate([m.ravel() for m in enlarged])[None, None]
    flat_masks = np.concatenate([m.ravel() for m in masks])[None, None]
    expected, _ = metrics.pixel_metrics(flat_maps, flat_masks)
    values = result["compat"]["original_size"]["classes"]["tile"]
    for key in ("pixel_auroc", "pixel_ap", "pixel_f1max"):
        assert values[key] == pytest.approx(expected[key], abs=1e-12)
    assert 0 < values["pixel_aupro"] < 1


def test_the_own_size_changes_nothing():
    tile = make_class("tile", 1)
    result = evaluate(replace(tile, original_masks=tuple(tile.masks)))
    values = result["compat"]["original_size"]["classes"]["tile"]
    assert values == {key: result["classes"]["tile"][key] for key in metrics.PIXEL_METRICS}


def test_a_stated_size():
    tile = make_class("tile", 1)
    masks = tuple(np.kron(mask, np.ones((4, 4), bool)) for mask in tile.masks)
    with Evaluator(EvalConfig(compat=("size_24", "size_48"))) as evaluator:
        evaluator.add(replace(tile, original_masks=masks))
        result = evaluator.result()
    blocks = result["compat"]
    own = {key: result["classes"]["tile"][key] for key in metrics.PIXEL_METRICS}
    assert blocks["size_24"]["classes"]["tile"] == own
    maps = np.stack([enlarge(values, (48, 48)) for values in tile.maps["final"]])
    doubled = np.stack([np.kron(mask, np.ones((2, 2), bool)) for mask in tile.masks])
    expected, _ = metrics.pixel_metrics(maps, doubled)
    assert blocks["size_48"]["classes"]["tile"] == expected
    assert result["protocol"]["compat"]["size_48"].startswith("at 48 x 48 pixels: masks")
    assert needs_original_masks(["bins_50", "size_48"]) and not needs_original_masks(["bins_50"])


def test_enlarged_maps_are_bilinear():
    values = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)
    expected = [
        [0, 0.25, 0.75, 1],
        [0.5, 0.75, 1.25, 1.5],
        [1.5, 1.75, 2.25, 2.5],
        [2, 2.25, 2.75, 3],
    ]
    assert enlarge(values, (4, 4)).tolist() == expected
    picture = np.random.default_rng(0).integers(0, 256, (5, 5, 3), np.uint8)
    as_image = resize_image(picture, 9)[..., 0]
    assert np.abs(enlarge(picture[..., 0], (9, 9)) - as_image).max() < 1  # Pillow rounds twice


def test_without_the_masks_the_mode_is_left_out():
    result = evaluate(make_class("tile", 1))
    assert result["compat"] == {}
    left_out = result["protocol"]["compat_left_out"]["original_size"]
    assert left_out == "class tile has no masks of the original size"


def test_masks_come_from_the_prepared_data_set(tmp_path):
    tfds.disable_progress_bar()
    write_class(tmp_path / "source", "apple", train=1, good=1, bad=1)
    tfds.builder(
        "anomaly_folder", data_dir=tmp_path / "data", source=str(tmp_path / "source")
    ).download_and_prepare()
    masks = OriginalMasks("anomaly_folder", str(tmp_path / "data"), "test")
    bad, good = masks("apple", ("apple/test/crack/000.png", "apple/test/good/000.png"))
    np.testing.assert_array_equal(bad, spot() > 0)
    np.testing.assert_array_equal(good, np.zeros_like(bad))
