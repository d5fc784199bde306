"""Cameras of 10 to 14 bits: prepared as their 8-bit copies, and predicted as prepared."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from promptmad_jax.commands.predictors import reading_of
from promptmad_jax.commands.prepare import prepare
from promptmad_jax.data.image_set import load_image_set
from promptmad_jax.data.prepared import find_prepared, read_records
from promptmad_jax.data.preprocess import decode_image
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving.folder import find_images, predict_files
from promptmad_jax.serving.prediction import Prediction
from promptmad_jax.serving.results import Options
from tests.data.image_trees import report_of, write_class, write_image


def camera(root, suffix, bits):
    """A class in grey 8-bit files, and where its images are stored with `bits` bits."""
    write_class(root / "eight", "widget")
    for path in sorted((root / "eight").rglob("*.png")):
        target = root / "deep" / path.relative_to(root / "eight")
        target.parent.mkdir(parents=True, exist_ok=True)
        image = Image.open(path).convert("L")
        image.save(path)
        if "ground_truth" in path.parts:
            image.save(target)
            continue
        noise = np.random.default_rng(0).integers(0, 2 ** (bits - 8), image.size[::-1])
        deep = np.asarray(image).astype(np.uint16) * 2 ** (bits - 8) + noise
        Image.fromarray(deep.astype(np.uint16)).save(target.with_suffix(suffix))
    return root / "eight", root / "deep"


@pytest.mark.parametrize(("suffix", "bits"), [(".tiff", 12), (".png", 12), (".png", 10)])
def test_a_camera_is_prepared_as_its_copy_and_predicted_as_prepared(tmp_path, suffix, bits, capsys):
    pixels_of = {}
    for source in camera(tmp_path, suffix, bits):
        data_dir = str(tmp_path / "data" / source.name)
        folder = prepare("anomaly_folder", data_dir, str(source))
        prepared = find_prepared("anomaly_folder", data_dir)
        records = list(read_records(prepared, "train")) + list(read_records(prepared, "test"))
        pixels_of[source.name] = {
            r["filename"].decode().rpartition(".")[0]: decode_image(r["image"]) for r in records
        }
        levels = load_image_set("anomaly_folder", data_dir, "train", 8).levels
    report = report_of(folder)
    assert (report["bit_depth"], report["pixel_range"]) == (bits, [0, 2**bits - 1])
    assert not report["problems"]
    assert f"read as {bits} bits (0 to {2**bits - 1})" in capsys.readouterr().out
    for name, image in pixels_of["deep"].items():
        assert np.abs(image.astype(int) - pixels_of["eight"][name]).max() <= 1
        file = (tmp_path / "deep" / name).with_suffix(suffix)
        np.testing.assert_array_equal(decode_image(file, levels), image)


@pytest.mark.parametrize(
    ("bits", "kind", "reason"),
    [
        (16, "dark", "all training images are almost black"),
        (10, "clipped", "5 images hold values .* clipped to 10 bits"),
    ],
)
def test_a_depth_that_does_not_fit_is_named(tmp_path, bits, kind, reason):
    _, source = camera(tmp_path, ".png", 12)
    folder = prepare("anomaly_folder", str(tmp_path / "data"), str(source), bit_depth=bits)
    (problem,) = report_of(folder)["problems"]
    assert (problem["file"], problem["kind"]) == ("widget", kind)
    assert re.search(reason, problem["reason"])
    assert "--bit_depth=N" in problem["action"]
    assert len(load_image_set("anomaly_folder", str(tmp_path / "data"), "train", 8)) == 2


def test_deep_test_images_of_eight_bit_training_are_left_out(tmp_path):
    tree = tmp_path / "source"
    write_class(tree, "widget")
    write_image(tree / "widget/test/good/deep.png", np.full((20, 24), 900, np.uint16))
    folder = prepare("anomaly_folder", str(tmp_path / "data"), str(tree))
    (problem,) = report_of(folder)["problems"]
    assert (problem["kind"], problem["action"]) == ("bit_depth", "left out")
    assert report_of(folder)["pixel_range"] is None


def test_predict_reads_by_the_runs_depth_and_names_what_it_clips(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    manifest = {"config": {}, "pixel_range": [0, 4095]}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    for name, value in (("plain", 4095), ("bright", 5000)):
        write_image(tmp_path / f"in/{name}.png", np.full((8, 8), value, np.uint16))
    brightest = lambda images, name: [
        Prediction(name, int(image.max()), np.zeros((8, 8), np.float32), (0, 1), None)
        for image in images
    ]

    def rows(workdir, depth=None):
        reading = reading_of(workdir and str(tmp_path / "run"), depth, 500)
        output = tmp_path / f"out{depth}"
        output.mkdir()
        predict_files(
            brightest, find_images([str(tmp_path / "in")]), "bolt", output, Options(reading)
        )
        lines = (output / "scores.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    bright, plain = rows("run")
    assert (bright["score"], plain["score"]) == (255, 255)
    assert bright["warnings"] == ["holds values 5000 to 5000, clipped to 12 bits (0 to 4095)"]
    assert "warnings" not in plain
    assert "bright.png: holds values 5000" in capsys.readouterr().err
    assert [row["score"] for row in rows("run", 14)] == [5000 >> 6, 4095 >> 6]
    with pytest.raises(UserError, match="none of the images"):
        rows("", "")
    assert "with --bit_depth=N" in capsys.readouterr().err
