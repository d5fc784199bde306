"""The evaluator: blocks, means, pooling, compatibility modes and refusals."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.metrics import metrics
from promptmad_jax.evaluation.protocol import Evaluator
from promptmad_jax.reporting.tables import format_table
from promptmad_jax.reporting.warnings import run_warnings
from promptmad_jax.runtime.errors import UserError
from tests.evaluation.classes import SIZE, image_metrics, make_class


def evaluate(*classes):
    with Evaluator(EvalConfig()) as evaluator:
        for class_maps in classes:
            evaluator.add(class_maps)
        return evaluator.result()


@pytest.fixture(scope="module")
def two_classes():
    return [make_class("tile", 1), make_class("screw", 2)]


@pytest.fixture(scope="module")
def result(two_classes):
    return evaluate(*two_classes)


def expected(class_maps, maps, labels=None):
    labels = class_maps.labels if labels is None else labels
    images, _ = image_metrics(metrics.image_scores(maps), labels)
    return images | metrics.pixel_metrics(maps, class_maps.masks)[0]


def test_form_of_the_result(result):
    assert set(result) == {
        "classes",
        "mean",
        "defined_classes",
        "pooled",
        "maps",
        "compat",
        "undefined",
        "protocol",
    }
    assert list(result["classes"]) == ["tile", "screw"]
    assert json.loads(json.dumps(result)) == result
    assert result["undefined"] == {}
    assert result["protocol"]["images"]["tile"] == {"normal": 3, "defective": 3}
    assert result["protocol"]["map_size"] == [[SIZE, SIZE]]
    assert result["protocol"]["aupro_05_limit"] == 0.05
    assert set(result["protocol"]["compat"]) == {"onenip_fusion", "resized_mask_label"}


def test_every_map_has_its_figures(result, two_classes):
    for class_maps in two_classes:
        name = class_maps.class_name
        assert result["classes"][name] == expected(class_maps, class_maps.maps["final"])
        for key in ("reconstruction", "coarse", "refined"):
            values = result["maps"][key]["classes"][name]
            assert values == expected(class_maps, class_maps.maps[key])
    assert set(result["maps"]) == {"reconstruction", "coarse", "refined"}


def test_mean_is_over_classes(result):
    for metric, value in result["mean"].items():
        rows = [row[metric] for row in result["classes"].values()]
        assert value == pytest.approx(sum(rows) / 2, abs=1e-15)
    assert set(result["defined_classes"].values()) == {2}


def test_pooled_equals_one_big_class(result, two_classes):
    maps = np.concatenate([c.maps["final"] for c in two_classes])
    masks = np.concatenate([c.masks for c in two_classes])
    labels = np.concatenate([c.labels for c in two_classes])
    images, _ = image_metrics(metrics.image_scores(maps), labels)
    pixels, _ = metrics.pixel_metrics(maps, masks)
    assert result["pooled"] == pytest.approx(images | pixels, abs=1e-12)


@pytest.mark.parametrize(
    "keys", [("reconstruction", "refined", "coarse"), ("reconstruction", "coarse")]
)
def test_onenip_fusion(keys):
    classes = [make_class("tile", 1, keys=keys), make_class("screw", 2, keys=keys)]
    compat = evaluate(*classes)["compat"]["onenip_fusion"]
    every = np.concatenate([c.maps["reconstruction"] for c in classes])
    scale = (float(every.max()) + float(every.min())) / 2
    assert compat["scale"] == pytest.approx(scale, abs=1e-12)
    for class_maps in classes:
        maps = class_maps.maps
        segmentation = maps[keys[1]]
        fused = (0.5 * maps["reconstruction"] + 0.5 * scale * segmentation).astype(np.float32)
        values = compat["classes"][class_maps.class_name]
        assert values == pytest.approx(expected(class_maps, fused), abs=1e-4)


def test_fusion_is_left_out_where_maps_are_missing():
    result = evaluate(make_class("tile", 1, keys=("reconstruction",)))
    assert "onenip_fusion" not in result["compat"]
    assert "tile" in result["protocol"]["compat_left_out"]["onenip_fusion"]


def test_mask_that_vanished_counts_as_normal_in_compat_only():
    class_maps = make_class("tile", 1)
    class_maps.masks[3] = False
    result = evaluate(class_maps)
    mode = result["compat"]["resized_mask_label"]
    assert mode["differ"] == {"tile": ["tile/test/003.png"]}
    scores = metrics.image_scores(class_maps.maps["final"])
    changed, _ = image_metrics(scores, np.array([0, 0, 0, 0, 1, 1]))
    assert mode["classes"]["tile"] == changed
    own, _ = image_metrics(scores, class_maps.labels)
    assert result["classes"]["tile"]["image_auroc"] == own["image_auroc"]


def test_undefined_is_none_with_a_reason_and_not_in_the_mean(two_classes):
    result = evaluate(two_classes[0], make_class("plain", 5, normal=2, defective=0))
    assert result["classes"]["plain"]["image_auroc"] is None
    assert result["undefined"]["plain"]["pixel_aupro"] == "no defective pixel"
    assert result["mean"] == result["classes"]["tile"]
    assert set(result["defined_classes"].values()) == {1}
    assert result["pooled"]["image_auroc"] is not None
    assert "plain: I-AUROC, I-AP, I-F1max undefined: no defective image" in format_table(result)


def test_nothing_defined_anywhere():
    result = evaluate(make_class("plain", 5, normal=2, defective=0))
    assert set(result["mean"].values()) == {None}
    assert set(result["pooled"].values()) == {None}
    assert result["undefined"]["pooled"]["pixel_ap"] == "no defective pixel"
    with Evaluator(EvalConfig(), {"bare": (1.0, 2.0)}) as evaluator:
        evaluator.add_untested("bare")
        result = evaluator.result()
    for block in (result, result["thresholds"]):
        assert set(block["classes"]["bare"].values()) == {None} == set(block["mean"].values())
        assert set(block["undefined"]["bare"].values()) == {"no test image"}
    assert result["compat"] == {} and result["thresholds"]["values"]["bare"]["image"] == 2
    assert "no test images of bare" in run_warnings(result, {})[0]


def test_nan_is_refused_with_the_file_and_the_map():
    class_maps = make_class("tile", 1)
    class_maps.maps["coarse"][2, 0, 0] = np.nan
    with pytest.raises(UserError, match=r"tile/test/002\.png: the coarse map is NaN"):
        evaluate(class_maps)


def test_refusals(two_classes, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no class to evaluate"):
        evaluate()
    with pytest.raises(UserError, match="class tile was added twice"):
        evaluate(two_classes[0], two_classes[0])
    with pytest.raises(UserError, match="class none has no test images"):
        evaluate(make_class("none", 1, normal=0, defective=0))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(UserError, match="no folder for temporary files"):
        Evaluator(EvalConfig())


def test_scratch_is_removed(two_classes, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Evaluator(EvalConfig()) as evaluator:
        evaluator.add(two_classes[0])
        assert list(tmp_path.glob("promptmad-*/*.raw"))
    assert list(Path(tmp_path).iterdir()) == []


def test_wrong_shapes_are_refused(two_classes):
    tile = two_classes[0]
    fields = {name: getattr(tile, name) for name in tile.__dataclass_fields__}
    for change in (
        {"maps": {"coarse": tile.maps["coarse"]}},
        {"labels": tile.labels[:-1]},
        {"images": tile.images[..., 0]},
        {"indices": np.arange(3)},
        {"original_masks": tuple(tile.masks[:2])},
        {"maps": tile.maps | {"coarse": tile.maps["coarse"][:, 1:]}},
    ):
        with pytest.raises(ValueError, match="class tile: "):
            ClassMaps(**(fields | change))


def test_shares_make_up_the_class(two_classes):
    tile = replace(two_classes[0], original_masks=tuple(two_classes[0].masks))
    shares = [tile.share(index, 4) for index in range(4)]
    assert [len(share.labels) for share in shares] == [2, 2, 1, 1]
    assert sorted(i for share in shares for i in share.indices) == list(range(6))
    for share in shares:
        for row, index in enumerate(share.indices):
            assert share.filenames[row] == tile.filenames[index]
            assert share.labels[row] == tile.labels[index]
            np.testing.assert_array_equal(share.masks[row], share.original_masks[row])
            np.testing.assert_array_equal(share.maps["coarse"][row], tile.maps["coarse"][index])
    assert len(tile.share(6, 1).filenames) == 0


def test_table_rows(result):
    text = format_table(result)
    value = f"{100 * result['mean']['pixel_aupro']:.1f}"
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if line.count("│") > 2}
    assert value in rows["mean"]
    assert {"tile", "screw", "pooled", "mean, refined", "mean, onenip_fusion"} <= set(rows)
