import pathlib
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from promptmad_jax.data.builders.source import find, fingerprint
from promptmad_jax.data.image_set import load_image_set
from promptmad_jax.runtime.errors import UserError
from tests.data.building import build, records
from tests.data.image_trees import pixels, problems_of, report_of, spot, write_class, write_image


def test_records_hold_the_images_and_their_masks(tmp_path):
    write_class(tmp_path / "source", "widget")
    folder = build(tmp_path / "data", tmp_path / "source")
    train, test = records(folder, "train"), records(folder, "test")
    assert sorted(train) == ["widget/train/good/000.png", "widget/train/good/001.png"]
    assert sorted(test) == [
        "widget/test/crack/000.png",
        "widget/test/crack/001.png",
        "widget/test/good/000.png",
    ]
    bad = test["widget/test/crack/001.png"]
    assert (bad["label"], bad["class_name"], bad["defect_type"]) == (1, b"widget", b"crack")
    np.testing.assert_array_equal(bad["mask"][:, :, 0], spot())
    original = Image.open(tmp_path / "source" / "widget" / "test" / "crack" / "001.png")
    np.testing.assert_array_equal(bad["image"], np.asarray(original))
    good = test["widget/test/good/000.png"]
    assert (good["label"], good["defect_type"]) == (0, b"good")
    assert good["mask"].shape == (20, 24, 1)
    assert not good["mask"].any()
    assert report_of(folder)["problems"] == []


def test_good_parts_alone_are_a_class_per_folder_and_reading_needs_no_source(tmp_path):
    names = ("bolt/1.png", "bolt/line/1.png", "nut/2.png")
    for seed, name in enumerate(names):
        write_image(tmp_path / "parts" / name, pixels(seed))
    (tmp_path / "parts" / "notes.txt").write_text("")
    build(tmp_path / "data", tmp_path / "parts", "normal_folder")
    nut = records(build(tmp_path / "one", tmp_path / "parts" / "nut", "normal_folder"), "train")
    assert {name: row["class_name"] for name, row in nut.items()} == {"nut/2.png": b"nut"}
    shutil.rmtree(tmp_path / "parts")
    builder = tfds.builder("normal_folder", data_dir=tmp_path / "data")
    rows = {row["filename"].decode(): row for row in builder.as_data_source("train")}
    assert {name: row["class_name"].decode() for name, row in rows.items()} == {
        name: name.split("/")[0] for name in names
    }
    assert builder.info.features["label"].names == ["good", "defective"]
    write_class(tmp_path / "parts", "widget")
    for wrong in ("parts", "parts/widget"):
        with pytest.raises(UserError, match="--dataset=anomaly_folder"):
            build(tmp_path / "data2", tmp_path / wrong, "normal_folder")


def test_every_fault_is_named_and_left_out(tmp_path):
    root = tmp_path / "source"
    write_class(root, "widget", train=4, good=2, bad=6)
    write_class(root, "hollow", train=0)
    base = root / "widget"
    train, masks = base / "train/good", base / "ground_truth/crack"
    cut = (train / "000.png").read_bytes()
    (train / "000.png").write_bytes(cut[: len(cut) // 2])
    (train / "001.png").write_text("no image")
    (train / "002.png").write_bytes(b"")
    (masks / "000_mask.png").unlink()
    write_image(masks / "001_mask.png", spot(height=21))
    write_image(masks / "002_mask.png", np.zeros((20, 24), np.uint8))
    (masks / "003_mask.png").write_text("no image")
    write_image(masks / "004_mask.png", 255 - spot())
    write_image(masks / "077_mask.png", spot())
    (train / "notes.txt").write_text("stray")
    write_image(base / "train" / "scratch" / "000.png", pixels(0))
    write_image(base / "test" / "lonely.png", pixels(0))
    write_image(base / "ground_truth" / "good" / "001_mask.png", spot())
    (root / "readme.md").write_text("stray")
    folder = build(tmp_path / "data", root)
    assert problems_of(folder) == {
        "widget/train/good/000.png": ("unreadable", "left out"),
        "widget/train/good/001.png": ("not_an_image", "left out"),
        "widget/train/good/002.png": ("unreadable", "left out"),
        "widget/test/crack/000.png": ("mask_missing", "left out"),
        "widget/test/crack/001.png": ("mask_size", "left out"),
        "widget/test/crack/002.png": ("mask_empty", "left out"),
        "widget/test/crack/003.png": ("mask_not_an_image", "left out"),
        "widget/test/crack/004.png": ("mask_full", "kept"),
        "widget/test/good/001.png": ("mask_on_good", "left out"),
        "widget/ground_truth/crack/077_mask.png": ("stray", "ignored"),
        "widget/train/good/notes.txt": ("stray", "ignored"),
        "widget/train/scratch/000.png": ("stray", "ignored"),
        "widget/test/lonely.png": ("stray", "ignored"),
        "readme.md": ("stray", "ignored"),
        "hollow": ("empty_class", "class left out, with 3 test images"),
    }
    assert sorted(records(folder, "train")) == ["widget/train/good/003.png"]
    assert sorted(records(folder, "test")) == [
        "widget/test/crack/004.png",
        "widget/test/crack/005.png",
        "widget/test/good/000.png",
    ]
    report = report_of(folder)
    assert report["class_names"] == ["widget"]
    assert report["counts"] == {"widget": {"train": 1, "test": {"crack": 2, "good": 1}, "masks": 2}}


@pytest.mark.parametrize("suffix", ["png", "PNG", "jpg", "JPEG", "bmp", "TIF", "tiff", "webp"])
def test_formats_and_cases_of_extensions(tmp_path, suffix):
    root = tmp_path / "source" / "widget"
    image = pixels(7, height=33, width=17)
    write_image(root / "Train" / "Good" / f"a.{suffix}", image)
    write_image(root / "TEST" / "ko" / f"b.{suffix}", image)
    write_image(root / "Ground_Truth" / "ko" / "b.BMP", spot(33, 17))
    folder = build(tmp_path / "data", tmp_path / "source")
    assert problems_of(folder) == {}
    record = records(folder, "test")[f"widget/TEST/ko/b.{suffix}"]
    np.testing.assert_array_equal(record["mask"][:, :, 0], spot(33, 17))
    decoded = np.asarray(Image.open(root / "TEST" / "ko" / f"b.{suffix}"))
    np.testing.assert_array_equal(record["image"], decoded)


def test_spaces_accents_and_bytes_that_are_no_text(tmp_path):
    write_class(tmp_path / "my söurce", "große Dose 螺丝")
    odd = b"odd\xff.png".decode("utf-8", "surrogateescape")
    good = tmp_path / "my söurce" / "große Dose 螺丝" / "train" / "good"
    shutil.copy(good / "000.png", good / odd)
    folder = build(tmp_path / "data dir", tmp_path / "my söurce")
    train = records(folder, "train")
    assert "große Dose 螺丝/train/good/000.png" in train
    assert "große Dose 螺丝/train/good/odd\\xff.png" in train
    assert report_of(folder)["class_names"] == ["große Dose 螺丝"]


def test_masks_in_one_folder_per_image_are_joined(tmp_path):
    write_class(tmp_path / "source", "widget", bad=1)
    masks = tmp_path / "source/widget/ground_truth/crack"
    (masks / "000").mkdir()
    (masks / "000_mask.png").rename(masks / "000" / "000.png")
    write_image(masks / "000" / "001.png", spot().T.copy().reshape(20, 24))
    folder = build(tmp_path / "data", tmp_path / "source")
    mask = records(folder, "test")["widget/test/crack/000.png"]["mask"][:, :, 0]
    np.testing.assert_array_equal(mask, spot() | spot().T.reshape(20, 24))
    assert problems_of(folder) == {}


def test_mask_with_loss_is_kept_and_said(tmp_path):
    write_class(tmp_path / "source", "widget", bad=1)
    masks = tmp_path / "source/widget/ground_truth/crack"
    (masks / "000_mask.png").unlink()
    write_image(masks / "000_mask.jpg", spot())
    folder = build(tmp_path / "data", tmp_path / "source")
    assert problems_of(folder) == {"widget/test/crack/000.png": ("mask_lossy", "kept")}
    assert "widget/test/crack/000.png" in records(folder, "test")


def test_one_class_folder_and_a_folder_around_it(tmp_path):
    write_class(tmp_path / "outer" / "inner", "widget")
    for number, source in enumerate(["outer/inner/widget", "outer/inner", "outer"]):
        folder = build(tmp_path / f"data{number}", tmp_path / source)
        assert "widget/train/good/000.png" in records(folder, "train")


def test_sources_that_are_none(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos" / "a.png", pixels(0))
    (tmp_path / "file.txt").write_text("text")
    for name, message in {
        "missing": "missing does not exist",
        "empty": "empty is empty: expected CLASS/train/good",
        "photos": "photos holds no class folder: expected CLASS/train/good",
        "file.txt": r"file\.txt: not a folder, an archive",
    }.items():
        with pytest.raises(UserError, match=message):
            build(tmp_path / "data", tmp_path / name)


def test_no_usable_training_image_names_a_fault(tmp_path):
    write_class(tmp_path / "source", "widget", train=1)
    (tmp_path / "source/widget/train/good/000.png").write_text("no image")
    with pytest.raises(UserError, match=r"no usable training image .*; 1 faults, .*000\.png: not"):
        build(tmp_path / "data", tmp_path / "source")
    assert not list((tmp_path / "data").glob("anomaly_folder/1.*"))


def test_fingerprint_follows_names_and_contents(tmp_path, tree):
    first = fingerprint(str(tree), "")
    assert fingerprint(str(tree), "") == first
    write_image(tree / "widget" / "train" / "good" / "000.png", pixels(9, 30, 30))
    second = fingerprint(str(tree), "")
    assert second != first
    (tree / "widget" / "ground_truth" / "crack" / "000_mask.png").unlink()
    third = fingerprint(str(tree), "")
    write_image(tree / "widget" / "ignore.png", pixels(1))
    assert len({first, second, third, fingerprint(str(tree), "")}) == 4


@pytest.mark.parametrize("name", ["anomaly_folder", "normal_folder"])
def test_a_mask_of_what_does_not_count_lies_in_the_class_folder(tmp_path, name):
    mask, source = np.zeros((40, 20), np.uint8), tmp_path / "parts"
    mask[:10] = 255
    if name == "normal_folder":
        write_image(source / "widget" / "1.png", pixels(1))
    else:
        write_class(source, "widget")
    write_image(source / "widget" / "ignore.png", mask)
    problems = report_of(build(tmp_path / "data", source, name))["problems"]
    assert [p["kind"] for p in problems] == ["no_test"] * (name == "normal_folder")
    image_set = load_image_set(name, str(tmp_path / "data"), "train", 8)
    assert list(image_set.ignored) == ["widget"] and "widget/ignore.png" not in image_set.filenames
    assert image_set.ignored["widget"][:2].all() and not image_set.ignored["widget"][2:].any()
    assert image_set.ignored_by_id.shape == (1, 8, 8) and image_set.ignored_by_id[0, :2].all()
    write_image(source / "widget" / "ignore.png", mask * 0)
    with pytest.raises(UserError, match=r"ignore.png: nothing is painted"):
        build(tmp_path / "again", source, name)


def test_unreadable_class_folder_is_said(tmp_path, tree, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(pathlib.Path, "iterdir", refuse)
    with pytest.raises(UserError, match="Permission denied"):
        find(str(tree), "", tmp_path)
