"""The builders of published data sets on small trees of their true layouts."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

import promptmad_jax.data.builders  # noqa: F401  (registers the builders)
from promptmad_jax.commands.prepare import FOLDER_DATASETS, prepare
from promptmad_jax.data.builders import btad, mad, mpdd, mvtec_ad_2, real_iad, visa
from promptmad_jax.data.image_set import load_image_set
from promptmad_jax.runtime.errors import UserError
from tests.data.image_trees import report_of, spot, write_class, write_image
from tests.data.published_trees import (
    regions,
    write_btad,
    write_csv,
    write_mad,
    write_mvtec_ad_2,
    write_real_iad,
    write_visa,
)


def build(tmp_path, name: str, source: pathlib.Path, **kwargs) -> pathlib.Path:
    options = {"overwrite": True} | kwargs
    return prepare(name, str(tmp_path / "data"), str(source), **options)


def records(folder: pathlib.Path, split: str) -> dict[str, dict]:
    source = tfds.builder_from_directory(folder).as_data_source(split)
    return {record["filename"].decode(): record for record in source}


def problems(folder: pathlib.Path, *, counts: bool = False) -> dict[str, str]:
    """file -> reason, without what is said of numbers and absent classes unless it is wanted."""
    found = report_of(folder)["problems"]
    return {p["file"]: p["reason"] for p in found if counts or p["kind"] != "count"}


def test_every_builder_is_known_to_prepare():
    for name in FOLDER_DATASETS:
        assert tfds.builder_cls(name).name == name


def test_published_counts():
    def total(expected, field):
        return sum(getattr(one, field) for one in expected.values())

    assert (total(visa.EXPECTED, "train"), total(visa.EXPECTED, "good")) == (8659, 962)
    assert total(visa.EXPECTED, "defective") == 1200
    assert [one.defective for one in btad.EXPECTED.values()] == [49, 200, 41]
    assert (total(btad.EXPECTED, "train"), total(btad.EXPECTED, "good")) == (1799, 451)
    assert (total(mpdd.EXPECTED, "train"), total(mpdd.EXPECTED, "good")) == (888, 176)
    assert total(mpdd.EXPECTED, "defective") == 282
    assert {sum(numbers) for numbers in real_iad.PUBLISHED.values()} == {151_050, 30_210}
    sets = (visa.EXPECTED, mad.TOYS, mvtec_ad_2.CLASSES, real_iad.CLASSES)
    assert [len(set(names)) for names in sets] == [12, 20, 8, 30]


def test_btad_mixes_extensions(tmp_path):
    folder = build(tmp_path, "btad", write_btad(tmp_path / "BTech_Dataset_transformed"))
    test = records(folder, "test")
    assert sorted(test) == sorted(
        f"{name}/test/{defect}.{suffix}"
        for name, suffix in (("01", "bmp"), ("02", "png"), ("03", "bmp"))
        for defect in ("ko/0002", "ok/0001")
    )
    bad = test["03/test/ko/0002.bmp"]
    assert (bad["label"], bad["defect_type"], bad["class_name"]) == (1, b"ko", b"03")
    np.testing.assert_array_equal(bad["mask"][:, :, 0], spot())
    assert test["01/test/ok/0001.bmp"]["defect_type"] == b"good"
    assert problems(folder) == {}
    assert problems(folder, counts=True)["03"] == (
        "differs from the published data set: train 1 of 1000, test/good 1 of 400, test/ko 1 of 41,"
        " masks 1 of 41"
    )


def test_mpdd_has_its_types(tmp_path):
    source = tmp_path / "MPDD"
    write_class(source, "tubes", bad=0)
    write_image(source / "tubes" / "test" / "flattening" / "000.png", spot())
    write_image(source / "tubes" / "ground_truth" / "flattening" / "000_mask.png", spot())
    folder = build(tmp_path, "mpdd", source)
    assert report_of(folder)["counts"]["tubes"]["test"] == {"flattening": 1, "good": 1}
    said = problems(folder, counts=True)
    assert "train 2 of 122" in said["tubes"]
    assert said["connector"] == "the class is missing"


def test_mad_in_both_forms(tmp_path):
    sim = write_mad(tmp_path / "MAD-Sim", "01Gorilla", ("Burrs", "Missing", "Stains"))
    folder = build(tmp_path, "mad_sim", sim)
    assert problems(folder) == {}
    assert report_of(folder)["counts"]["01Gorilla"]["test"] == {
        **{"Burrs": 1, "Missing": 1, "Stains": 1},
        "good": 1,
    }
    assert problems(folder, counts=True)["20Puppy"] == "the class is missing"
    real = write_mad(tmp_path / "MAD-Real", "Elephant", ("Missing",))
    (real / "Elephant" / "notes.md").write_text("")
    assert problems(build(tmp_path, "mad_real", real), counts=True) == {
        "Elephant/notes.md": "not one of train, validation, test, ground_truth"
    }
    with pytest.raises(UserError, match=r"none of the 20 classes of MAD-Sim .*Elephant"):
        build(tmp_path, "mad_sim", real)


def test_mvtec_ad_2_has_a_validation_split_and_no_private_test(tmp_path):
    source = write_mvtec_ad_2(tmp_path / "mvtec_ad_2")
    (source / "can" / "notes").mkdir()
    folder = build(tmp_path, "mvtec_ad_2", source)
    assert report_of(folder)["images"] == {"train": 1, "validation": 1, "test": 3}
    assert report_of(folder)["counts"]["can"] == {
        **{"train": 1, "validation": 1, "masks": 2},
        "test": {"bad": 2, "good": 1},
    }
    test = records(folder, "test")
    bad = test["can/test_public/bad/000_overexposed.png"]
    np.testing.assert_array_equal(bad["mask"][:, :, 0], spot())
    validation = load_image_set("mvtec_ad_2", str(tmp_path / "data"), "validation", 8)
    assert validation.filenames == ("can/validation/good/001_regular.png",)
    assert not validation.masks.any()
    server = "images without ground truth, which only the benchmark's server has"
    assert problems(folder) == {
        "can/test_private/": f"1 {server}",
        "can/test_private_mixed/": f"2 {server}",
        "can/notes/": "not one of train, validation, test_public, test_private, test_private_mixed",
    }


@pytest.fixture
def real_source(tmp_path):
    return write_real_iad(tmp_path / "Real-IAD")


def test_real_iad_follows_its_lists(tmp_path, real_source):
    folder = build(tmp_path, "real_iad", real_source)
    test = records(folder, "test")
    names = [f"usb/NG/HS/S0002/usb_0002_NG_HS_C{k}_20231021.jpg" for k in (1, 2)]
    assert sorted(test) == names
    assert [test[name]["defect_type"] for name in names] == [b"HS", b"good"]
    np.testing.assert_array_equal(test[names[0]]["mask"][:, :, 0], spot())
    assert not test[names[1]]["mask"].any()
    assert len(records(folder, "train")) == 2
    assert problems(folder) == {}


def test_real_iad_single_view_nested_lists_and_sizes(tmp_path, real_source):
    folder = build(tmp_path, "real_iad", real_source / "realiad_jsons_sv")
    assert report_of(folder)["images"] == {"train": 1, "test": 1}
    write_real_iad(real_source, size="512")
    with pytest.raises(UserError, match=r"more than one folder of images .*realiad_512.*image_dir"):
        build(tmp_path, "real_iad", real_source)
    nested = real_source / "realiad_jsons" / "realiad_jsons"
    nested.mkdir()
    shutil.move(real_source / "realiad_jsons" / "usb.json", nested / "usb.json")
    folder = build(tmp_path, "real_iad", real_source, image_dir=str(real_source / "realiad_512"))
    assert report_of(folder)["images"] == {"train": 2, "test": 2}
    with pytest.raises(UserError, match="no such folder; check --image_dir"):
        build(tmp_path, "real_iad", real_source, image_dir=str(tmp_path / "nothing"))


def test_real_iad_names_faults(tmp_path, real_source):
    path = real_source / "realiad_jsons" / "usb.json"
    document = json.loads(path.read_text())
    noisy = {**document["test"][0], "image_path": "NG/HS/S0003/a.jpg"}
    document["train"].append(noisy)
    document["test"] += [{"category": "usb"}, {**noisy, "category": "zipper"}, noisy]
    path.write_text(json.dumps(document))
    assert problems(build(tmp_path, "real_iad", real_source)) == {
        "usb.json: train[2]": "a defective image in the training list",
        "usb.json: test[2]": "no object with category, anomaly_class, image_path, mask_path",
        "usb.json: test[3]": "of the category zipper",
        "usb/NG/HS/S0003/a.jpg": "No such file or directory",
    }
    path.write_text("{}")
    with pytest.raises(UserError, match=r"usb\.json: not a list of Real-IAD"):
        build(tmp_path, "real_iad", real_source)
    shutil.rmtree(real_source / "realiad_jsons")
    with pytest.raises(UserError, match=r"no CLASS\.json in it or in realiad_jsons"):
        build(tmp_path, "real_iad", real_source)
    with pytest.raises(UserError, match=r"no folder of images .*--image_dir"):
        build(tmp_path, "real_iad", _moved(real_source / "realiad_jsons_sv", tmp_path / "lists"))


def _moved(folder: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.move(folder, target))


PCB = [
    ("bent", regions(1, 1)),
    ("melt, Scratch", regions(2, 3, 2)),
    ("missing", regions(4, 9)),
    ("bent,melt", regions(1, 4)),
]


@pytest.fixture
def visa_source(tmp_path):
    return write_visa(tmp_path / "VisA", {"pcb1": PCB})


def test_visa_gives_each_pixel_its_label(tmp_path, visa_source):
    folder = build(tmp_path, "visa", visa_source)
    assert len(records(folder, "train")) == 2
    test = records(folder, "test")
    rows = [test[f"pcb1/Data/Images/Anomaly/{k:03}.JPG"] for k in range(4)]
    assert [row["defect_type"] for row in rows] == [
        b"bent",
        b"melt,scratch",
        b"missing",
        b"bent,melt",
    ]
    wanted = [regions(1, 1), regions(1, 2, 1), regions(1, 1), regions(1, 255)]
    for row, ids in zip(rows, wanted, strict=True):
        np.testing.assert_array_equal(row["defect_ids"][:, :, 0], ids)
        np.testing.assert_array_equal(row["mask"][:, :, 0] == 255, ids > 0)
    normal = test["pcb1/Data/Images/Normal/0001.JPG"]
    assert (normal["label"], normal["defect_ids"].any()) == (0, False)
    masks = "pcb1/Data/Masks/Anomaly"
    assert problems(folder) == {
        "pcb1/Data/Images/Anomaly/002.JPG": f"the mask {masks}/002.png has the ids 9, which are"
        " none of its labels missing",
        "pcb1/Data/Images/Anomaly/003.JPG": f"the mask {masks}/003.png has the ids 4, which are"
        " none of its labels bent,melt",
    }
    assert (
        "train 2 of 904, test/good 1 of 100, masks 4 of 100"
        in problems(folder, counts=True)["pcb1"]
    )


def test_visa_names_faults(tmp_path, visa_source):
    path = visa_source / "split_csv" / "1cls.csv"
    good = "pcb1/Data/Images/Normal/0000.JPG"
    lines = path.read_text().splitlines()
    lines += [
        f"pcb1,test,normal,{good},",
        "pcb1,val,normal,pcb1/a.JPG,",
        "pcb1,train,anomaly,pcb1/a.JPG,pcb1/a.png",
        "pcb1,test,anomaly,pcb1/a.JPG,",
        "pcb1,test,normal",
        "pcb1,test,normal,pcb1/gone.JPG,",
        "pcb2,train,normal,pcb1/Data/Images/Normal/0001.JPG,",
    ]
    path.write_text("\n".join(lines))
    annotations = visa_source / "pcb1" / "image_anno.csv"
    kept = [line for line in annotations.read_text().splitlines() if "Anomaly/000" not in line]
    annotations.write_text("\n".join(kept))
    folder = build(tmp_path, "visa", visa_source)
    said = problems(folder)
    assert {name: reason for name, reason in said.items() if "mask" not in reason} == {
        good: "listed twice",
        "split_csv/1cls.csv: line 10": "split val, label normal: not train or test, normal or"
        " anomaly",
        "split_csv/1cls.csv: line 11": "a defective image in the training list",
        "split_csv/1cls.csv: line 13": "3 fields instead of 5",
        "pcb1/gone.JPG": "No such file or directory",
        "pcb1/Data/Images/Normal/0001.JPG": "listed twice",
        "pcb1/Data/Images/Anomaly/000.JPG": "no label in pcb1/image_anno.csv",
    }
    assert said["split_csv/1cls.csv: line 12"] == "a defect without a mask"
    assert records(folder, "test")["pcb1/Data/Images/Anomaly/000.JPG"]["defect_type"] == b"anomaly"


def test_visa_without_labels_or_with_another_layout(tmp_path, visa_source):
    (visa_source / "pcb1" / "image_anno.csv").unlink()
    folder = build(tmp_path, "visa", visa_source)
    assert problems(folder)["pcb1/image_anno.csv"] == "no such file"
    write_csv(visa_source / "split_csv" / "1cls.csv", [["image", "label"]])
    with pytest.raises(UserError, match=r"1cls\.csv: begins with image,label, not object,split"):
        build(tmp_path, "visa", visa_source)
    write_class(tmp_path / "converted", "pcb1")
    with pytest.raises(UserError, match=r"lost the defect types: prepare it with --dataset=anom"):
        build(tmp_path, "visa", tmp_path / "converted")


def test_visa_is_built_again_when_its_labels_change(tmp_path, visa_source, capsys):
    build(tmp_path, "visa", visa_source, overwrite=False)
    build(tmp_path, "visa", visa_source, overwrite=False)
    assert "nothing to do" in capsys.readouterr().out
    labels = visa_source / "pcb1" / "image_anno.csv"
    labels.write_text(labels.read_text().replace("000.JPG,bent,", "000.JPG,extra,"))
    folder = build(tmp_path, "visa", visa_source, overwrite=False)
    types = {row["defect_type"] for row in records(folder, "test").values()}
    assert b"extra" in types


def test_visa_from_an_archive_and_the_usual_single_defect_list(tmp_path, visa_source, monkeypatch):
    monkeypatch.setattr(visa.Visa, "EXPECTED", {"pcb1": visa.Expected(2, 1, 4, None)})
    archive = shutil.make_archive(str(tmp_path / "VisA"), "tar", visa_source.parent, "VisA")
    said = problems(build(tmp_path, "visa", pathlib.Path(archive)), counts=True)
    assert said["visa"].endswith("images with one defect label 2 of 916")


def test_ids_of_visa_are_those_of_its_labels():
    assert visa.mask_id("pcb4", "wrong place") == 6
    assert visa.mask_id("pcb4", "bubble") == visa.mask_id("cup", "bent") == 0
    numbers = {name: len(labels) for name, labels in visa.LABELS.items()}
    assert list(numbers.values()) == [8, 5, 9, 6, 8, 7, 7, 4, 4, 4, 7, 9]
