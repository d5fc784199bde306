"""The MVTec-AD builder."""

import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from promptmad_jax.data.builders.mvtec_ad import EXPECTED
from promptmad_jax.runtime.errors import UserError
from tests.data.building import build, records
from tests.data.image_trees import report_of, write_class, write_image


def test_published_counts_of_mvtec_ad():
    assert len(EXPECTED) == 15
    assert sum(expected.train for expected in EXPECTED.values()) == 3629
    assert sum(expected.good for expected in EXPECTED.values()) == 467
    assert sum(len(expected.defects) for expected in EXPECTED.values()) == 73
    assert sum(sum(expected.defects.values()) for expected in EXPECTED.values()) == 1258


def test_mvtec_ad_tells_what_differs(tmp_path):
    root = tmp_path / "source"
    tiny = np.full((1, 1), 128, np.uint8)
    for i in range(EXPECTED["toothbrush"].train):
        write_image(root / "toothbrush" / "train" / "good" / f"{i:03}.png", tiny)
    for i in range(EXPECTED["toothbrush"].good):
        write_image(root / "toothbrush" / "test" / "good" / f"{i:03}.png", tiny)
    for i in range(EXPECTED["toothbrush"].defects["defective"]):
        write_image(root / "toothbrush" / "test" / "defective" / f"{i:03}.png", tiny)
        mask = root / "toothbrush" / "ground_truth" / "defective" / f"{i:03}_mask.png"
        write_image(mask, tiny)
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
