"""Data sets described by lists of files."""

import json
import pathlib

import numpy as np
import pytest

from promptmad_jax.runtime.errors import UserError
from tests.data.building import build, records
from tests.data.image_trees import problems_of, report_of, spot


def list_lines(path: pathlib.Path, items: list[dict]) -> pathlib.Path:
    path.write_text("\n".join(json.dumps(item) for item in items), encoding="utf-8")
    return path


def test_json_lines(tmp_path, tree):
    good = {"clsname": "widget", "label": 0, "label_name": "good"}
    bad = {"clsname": "widget", "label": 1, "label_name": "defective"}
    first = {**good, "filename": "widget/train/good/000.png"}
    train = [first, first, {**good, "filename": "widget\\train\\good\\001.png"}, first]
    mask = "widget/ground_truth/crack/000_mask.png"
    test = [
        {**good, "filename": "widget/test/good/000.png", "maskname": ""},
        {**bad, "filename": "widget/test/crack/000.png", "maskname": mask},
        {**bad, "filename": "widget/test/crack/001.png"},
        {**bad, "filename": "widget/test/crack/000.PNG", "maskname": mask},
        {**good, "filename": "widget/train/good/001.png"},
        {"clsname": "widget", "label": 1},
    ]
    source = list_lines(tmp_path / "train.json", train)
    list_lines(tmp_path / "test.json", test)
    folder = build(tmp_path / "data", source, image_dir=str(tree))
    assert sorted(records(folder, "train")) == [
        "widget/train/good/000.png",
        "widget/train/good/001.png",
    ]
    rows = records(folder, "test")
    assert rows["widget/test/crack/000.png"]["defect_type"] == b"crack"
    np.testing.assert_array_equal(rows["widget/test/crack/000.png"]["mask"][:, :, 0], spot())
    assert (rows["widget/test/crack/001.png"]["mask"] == 255).all()
    assert not rows["widget/test/good/000.png"]["mask"].any()
    assert len(rows) == 3
    problems = problems_of(folder)
    assert problems.pop("test.json: line 6") == ("bad_entry", "left out")
    assert problems == {
        "widget/train/good/000.png": ("duplicate", "kept once"),
        "widget/train/good/001.png": ("leak", "kept in train alone"),
        "widget/test/crack/001.png": ("mask_missing", "kept, the whole image as defective"),
        "widget/test/crack/000.png": ("duplicate", "kept once"),
    }
    reasons = [p["reason"] for p in report_of(folder)["problems"] if p["kind"] == "duplicate"]
    assert reasons == ["listed 2 times in test", "listed 3 times in train"]


def test_json_lines_in_one_file_take_the_split_from_the_folders(tmp_path, tree):
    names = ["widget/train/good/000.png", "widget/test/good/000.png", "elsewhere/a.png"]
    items = [{"filename": name, "clsname": "widget", "label": 0} for name in names]
    folder = build(tmp_path / "data", list_lines(tree / "all.jsonl", items))
    assert list(records(folder, "train")) == names[:1]
    assert list(records(folder, "test")) == names[1:2]
    assert problems_of(folder) == {"all.jsonl: line 3": ("bad_entry", "left out")}


def test_meta_json(tmp_path, tree):
    def item(path, specie, anomaly, mask=""):
        return {
            "img_path": f"widget/{path}",
            "mask_path": mask,
            "cls_name": "widget",
            "specie_name": specie,
            "anomaly": anomaly,
        }

    mask = "widget/ground_truth/crack/000_mask.png"
    meta = {
        "train": {"widget": [item("train/good/000.png", "good", 0)]},
        "test": {
            "widget": [
                item("test/good/000.png", "good", 0),
                item("test/crack/000.png", "crack", 1, mask),
                item("test/crack/001.png", "crack", 1),
                {"img_path": "widget/test/crack/002.png"},
            ]
        },
    }
    (tree / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    folder = build(tmp_path / "data", tree / "meta.json")
    assert list(records(folder, "train")) == ["widget/train/good/000.png"]
    assert sorted(records(folder, "test")) == [
        "widget/test/crack/000.png",
        "widget/test/good/000.png",
    ]
    assert problems_of(folder) == {
        "widget/test/crack/001.png": ("mask_missing", "left out"),
        "meta.json: test/widget[3]": ("bad_entry", "left out"),
    }


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"filename": "a.png", "clsname": "x", "label": 2}, "label 2 is neither 0 nor 1"),
        ({"filename": "a.png", "clsname": 3, "label": 0}, "3 is not a name"),
        ({"filename": "a.png", "label": 0}, "the key 'clsname' is missing"),
        (
            {"filename": "gone.png", "clsname": "x", "label": 0},
            "give their folder with --image_dir",
        ),
        (
            {"filename": "a.png", "clsname": "x", "label": 1, "label_name": "good"},
            "labelled defective and named good",
        ),
    ],
)
def test_lists_without_a_usable_entry(tmp_path, item, message):
    source = list_lines(tmp_path / "train.json", [item])
    with pytest.raises(UserError, match=message):
        build(tmp_path / "data", source)
