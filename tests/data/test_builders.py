import json
import pathlib
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import promptmad_jax.data.builders  # noqa: F401  (registers the builders)
from promptmad_jax.data.builders.mvtec_ad import EXPECTED
from promptmad_jax.data.builders.source import find, fingerprint
from promptmad_jax.runtime.errors import UserError
from tests.data.image_trees import pixels, problems_of, report_of, spot, write_class, write_image


@pytest.fixture(autouse=True)
def _no_bars():
    tfds.disable_progress_bar()


def build(data_dir, source, name="anomaly_folder", **kwargs) -> pathlib.Path:
    builder = tfds.builder(name, data_dir=data_dir, source=str(source), **kwargs)
    builder.download_and_prepare()
    return pathlib.Path(builder.data_dir)


def records(folder: pathlib.Path, split: str) -> dict[str, dict]:
    source = tfds.builder_from_directory(folder).as_data_source(split)
    rows = {record["filename"].decode(): record for record in source}
    assert len(rows) == len(source)
    return rows


def list_lines(path: pathlib.Path, items: list[dict]) -> pathlib.Path:
    path.write_text("\n".join(json.dumps(item) for item in items), encoding="utf-8")
    return path


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


def test_reading_needs_no_source(tmp_path):
    write_class(tmp_path / "source", "widget")
    build(tmp_path / "data", tmp_path / "source")
    shutil.rmtree(tmp_path / "source")
    builder = tfds.builder("anomaly_folder", data_dir=tmp_path / "data")
    assert len(builder.as_data_source("train")) == 2
    assert builder.info.features["label"].names == ["good", "defective"]


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


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "I;16"])
def test_pixel_types_are_stored_so_that_every_reader_agrees(tmp_path, mode):
    root = tmp_path / "source" / "widget" / "train" / "good"
    root.mkdir(parents=True)
    grey = np.tile(np.asarray([[0, 255]], np.uint8), (6, 5))
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    image = wide if mode == "I;16" else Image.fromarray(grey).convert(mode)
    image.save(root / "a.png")
    folder = build(tmp_path / "data", tmp_path / "source")
    record = records(folder, "train")["widget/train/good/a.png"]
    np.testing.assert_array_equal(record["image"], np.repeat(grey[:, :, None], 3, axis=2))
    assert problems_of(folder) == {"widget": ("no_test", "kept for training")}


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


def test_masks_of_class_ids_are_foreground(tmp_path):
    write_class(tmp_path / "source", "pcb", bad=0)
    for value in (1, 2):
        write_image(tmp_path / f"source/pcb/test/bad/{value}.JPG", pixels(value))
        mask = tmp_path / f"source/pcb/ground_truth/bad/{value}.png"
        write_image(mask, spot(value=value))
    folder = build(tmp_path / "data", tmp_path / "source")
    for value in (1, 2):
        record = records(folder, "test")[f"pcb/test/bad/{value}.JPG"]
        np.testing.assert_array_equal(record["mask"][:, :, 0], spot())


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


@pytest.fixture
def tree(tmp_path):
    write_class(tmp_path / "images", "widget")
    return tmp_path / "images"


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
        "widget/test/crack/000.PNG": ("unreadable", "left out"),
    }
    duplicate = next(p for p in report_of(folder)["problems"] if p["kind"] == "duplicate")
    assert duplicate["reason"] == "listed 3 times in train"


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


@pytest.mark.parametrize("suffix", ["tar.xz", "tar", "zip"])
def test_archives(tmp_path, suffix):
    write_class(tmp_path / "source" / "top", "widget")
    kind = {"tar.xz": "xztar", "tar": "tar", "zip": "zip"}[suffix]
    archive = shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path / "source")
    folder = build(tmp_path / "data", archive)
    assert len(records(folder, "train")) == 2
    assert not list(tmp_path.glob("data/**/.unpacked-*"))


@pytest.mark.parametrize("suffix", ["tar.xz", "zip"])
def test_a_cut_archive_is_said(tmp_path, suffix):
    write_class(tmp_path / "source", "widget")
    kind = {"tar.xz": "xztar", "zip": "zip"}[suffix]
    archive = pathlib.Path(shutil.make_archive(str(tmp_path / "p"), kind, tmp_path / "source"))
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(UserError, match="damaged or incomplete"):
        build(tmp_path / "data", archive)


def test_archive_members_cannot_leave_the_folder(tmp_path):
    write_class(tmp_path / "source", "widget")
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.add(tmp_path / "source" / "widget", arcname="../widget")
    with pytest.raises(UserError, match="damaged or incomplete"):
        build(tmp_path / "data" / "deep", tmp_path / "evil.tar")
    assert not list((tmp_path / "data").rglob("*.png"))


def test_fingerprint_follows_names_and_contents(tmp_path, tree):
    first = fingerprint(str(tree), "")
    assert fingerprint(str(tree), "") == first
    write_image(tree / "widget" / "train" / "good" / "000.png", pixels(9, 30, 30))
    second = fingerprint(str(tree), "")
    assert second != first
    (tree / "widget" / "ground_truth" / "crack" / "000_mask.png").unlink()
    assert fingerprint(str(tree), "") not in (first, second)


def test_published_counts_of_mvtec_ad():
    assert len(EXPECTED) == 15
    assert sum(expected.train for expected in EXPECTED.values()) == 3629
    assert sum(expected.good for expected in EXPECTED.values()) == 467
    assert sum(len(expected.defects) for expected in EXPECTED.values()) == 73
    assert sum(sum(expected.defects.values()) for expected in EXPECTED.values()) == 1258


def test_mvtec_ad_tells_what_differs(tmp_path):
    root = tmp_path / "source"
    tiny = np.zeros((1, 1), np.uint8)
    for i in range(EXPECTED["toothbrush"].train):
        write_image(root / "toothbrush" / "train" / "good" / f"{i:03}.png", tiny)
    for i in range(EXPECTED["toothbrush"].good):
        write_image(root / "toothbrush" / "test" / "good" / f"{i:03}.png", tiny)
    for i in range(EXPECTED["toothbrush"].defects["defective"]):
        write_image(root / "toothbrush" / "test" / "defective" / f"{i:03}.png", tiny)
        mask = root / "toothbrush" / "ground_truth" / "defective" / f"{i:03}_mask.png"
        write_image(mask, tiny + 255)
    write_class(root, "bottle")
    write_class(root, "teapot")
    folder = build(tmp_path / "data", root, name="mvtec_ad")
    reasons = {p["file"]: p["reason"] for p in report_of(folder)["problems"]}
    assert "toothbrush" not in reasons
    assert reasons["teapot"] == "not a class of MVTec-AD"
    assert reasons["zipper"] == "the class is missing"
    assert reasons["bottle"] == (
        "differs from the published data set: train 2 of 209, test/good 1 of 20,"
        " test/broken_large 0 of 20, test/broken_small 0 of 22, test/contamination 0 of 21,"
        " test/crack 2 of 0, masks 2 of 63"
    )
    assert {record["class_name"] for record in records(folder, "train").values()} == {
        b"bottle",
        b"toothbrush",
    }


def test_mvtec_ad_refuses_another_data_set(tmp_path, tree):
    with pytest.raises(UserError, match=r"none of the 15 classes .*widget.*anomaly_folder"):
        build(tmp_path / "data", tree, name="mvtec_ad")


def test_mvtec_ad_finds_its_archive_in_the_manual_folder(tmp_path):
    write_class(tmp_path / "source", "bottle")
    manual = tmp_path / "data" / "downloads" / "manual"
    manual.mkdir(parents=True)
    shutil.make_archive(str(manual / "mvtec_anomaly_detection"), "xztar", tmp_path / "source")
    builder = tfds.builder("mvtec_ad", data_dir=tmp_path / "data")
    builder.download_and_prepare()
    assert builder.info.splits["train"].num_examples == 2


def test_unreadable_class_folder_is_said(tmp_path, tree, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(pathlib.Path, "iterdir", refuse)
    with pytest.raises(UserError, match="Permission denied"):
        find(str(tree), "", tmp_path)
