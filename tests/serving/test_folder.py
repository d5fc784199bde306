"""What a prediction writes for files and folders."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptmad_jax.data.image_files import ImageFileError
from promptmad_jax.evaluation.thresholds import Thresholds
from promptmad_jax.serving.folder import find_images, predict_files, refuse_overlap, score
from promptmad_jax.serving.prediction import Prediction
from promptmad_jax.serving.results import Options

LIMITS = Thresholds(0.5, 0.5, 10, region=0.5, novelty=2.0, rate=1 / 11)


class Spots:
    """Scores the red channel; what is green is no picture of the class."""

    class_names = ("bolt",)

    def __init__(self):
        self.batches = []

    def __call__(self, images, class_name):
        self.batches.append(len(images))
        return [
            Prediction(class_name, float(red.max()), red, (0.0, 1.0), LIMITS,
                       novelty=float(image[0, 0, 1]), unlike="darker than all normal images")
            for image in images for red in [image[..., 0].astype(np.float32) / 255]
        ]  # fmt: skip


@pytest.fixture
def parts(tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    image = np.full((60, 80, 3), 40, np.uint8)
    image[..., 1] = 0
    for name in ("c.png", "e.png", "sub/a.png"):
        Image.fromarray(image).save(folder / name)
    image[20:30, 50:60, 0] = 200
    Image.fromarray(image).save(folder / "a.png")
    Image.fromarray(image + np.array([0, 9, 0], np.uint8)).save(folder / "d.png")
    (folder / "b.png").symlink_to("b.png")
    return folder


def written(parts, output, *options):
    output.mkdir(exist_ok=True)
    images = find_images([str(parts)])
    refuse_overlap(images, str(output), "--output")
    assert predict_files(Spots(), images, "bolt", output, *options) == 5
    rows = [json.loads(line) for line in (output / "scores.jsonl").read_text().splitlines()]
    return rows, list(csv.DictReader((output / "scores.csv").open(newline="")))


def test_rows_in_the_order_of_the_files(parts, tmp_path):
    rows, table = written(parts, tmp_path / "out", Options(copies=tmp_path / "copies"))
    assert [row["file"][len(str(parts)) + 1 :] for row in rows] == [
        "a.png", "b.png", "c.png", "d.png", "e.png", "sub/a.png",
    ]  # fmt: skip
    verdicts = "defective", None, "normal", "unknown", "normal", "normal"
    assert tuple(row.get("verdict") for row in rows) == verdicts
    for row, line in zip(rows, table, strict=True):
        assert line["file"] == row["file"] and line["verdict"] == (row.get("verdict") or "")
        assert line["error"] == row.get("error", "")
        assert line["regions"] == str(len(row["regions"]) if "regions" in row else "")
    assert (table[0]["largest_region"], table[0]["score"]) == ("100", str(rows[0]["score"]))
    assert (rows[0]["false_alarm_rate"], table[0]["false_alarm_rate"]) == (1 / 11, str(1 / 11))
    copies = sorted(path.name for path in (tmp_path / "copies").iterdir())
    assert copies == ["a.png", "d.png"]
    Image.new("RGB", (9, 9)).save(tmp_path / "copies" / "a.png")
    written(parts, tmp_path / "out", Options(copies=tmp_path / "copies"))
    written(parts, tmp_path / "out", Options(copies=tmp_path / "copies"))
    assert Image.open(tmp_path / "copies" / "a.png").size == (9, 9)
    assert (tmp_path / "copies" / "a_2.png").read_bytes() == (parts / "a.png").read_bytes()
    assert len(list((tmp_path / "copies").iterdir())) == 3


def test_overlays_show_regions_and_verdict(parts, tmp_path):
    shown = {}
    for name, marked in (("plain", False), ("marked", True)):
        written(parts, tmp_path / name, Options(marked=marked))
        for part in "acd":
            shown[name, part] = np.asarray(Image.open(tmp_path / name / f"{part}.png")).astype(int)
    original = {part: np.asarray(Image.open(parts / f"{part}.png")).astype(int) for part in "acd"}
    changed = (shown["plain", "a"] != original["a"]).any(-1)
    rows, columns = np.nonzero(changed)
    assert changed[20:30, 50:60].all()
    assert rows.min() > 15 and rows.max() < 35 and columns.min() > 45 and columns.max() < 65
    for part in "cd":
        np.testing.assert_array_equal(shown["plain", part], original[part])
    for part in "acd":
        differs = (shown["marked", part] != shown["plain", part]).any(-1)
        assert differs[:8, :25].mean() > 0.9 and not differs[16:].any()


def test_an_image_whose_regions_are_too_small_is_normal(parts, tmp_path):
    (row, *_), _ = written(parts, tmp_path / "out", Options(min_region=101))
    assert (row["verdict"], row["regions"]) == ("normal", [])
    assert row["reason"].endswith("but no region has 101 pixels")


def test_no_lone_image_is_left_at_the_end():
    class Constant:
        def rgb(self, path):
            if path.suffix == ".txt":
                raise ImageFileError(path, "unreadable", "bad")
            return np.zeros((4, 4, 3), np.uint8), []

    for count, expected in ((1, [1]), (9, [9]), (10, [8, 2]), (17, [8, 9]), (18, [8, 8, 2])):
        spots = Spots()
        names = [Path(f"{i}.png") for i in range(count)]
        images = [(Path("bad.txt"), Path("bad")), *zip(names, names, strict=True)]
        found = list(score(spots, images, "bolt", Constant()))
        assert [one.path for one in found] == [path for path, _ in images]
        assert spots.batches == expected and found[0].error == "bad.txt: bad"
