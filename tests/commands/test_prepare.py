import os
import pathlib
import subprocess
import sys

import pytest
from PIL import Image

from promptmad_jax.commands import prepare as prepare_module
from promptmad_jax.commands.examples import check_examples, write_examples
from promptmad_jax.commands.prepare import prepare
from promptmad_jax.data.builders.synthetic_mvtec import SyntheticMvtec
from promptmad_jax.data.image_set import load_image_set
from promptmad_jax.data.prepared import find_prepared
from promptmad_jax.runtime.errors import UserError
from tests.data.image_trees import pixels, report_of, spot, write_class, write_image

ROOT = pathlib.Path(__file__).parents[2]
TINY = {
    "image_size": 64,
    "train_per_class": 1,
    "test_good_per_class": 1,
    "test_per_defect": 1,
    "class_names": ["grained_leather"],
}


def test_examples_are_files_of_every_type(tmp_path):
    prepare("synthetic_mvtec", str(tmp_path / "data"), arguments=TINY)
    for _ in range(2):
        write_examples(str(tmp_path / "data"), str(tmp_path / "examples"))
    names = sorted(path.stem for path in (tmp_path / "examples" / "grained_leather").iterdir())
    assert names == ["cut_000", "fold_000", "glue_000", "good_000", "poke_000"]
    with Image.open(tmp_path / "examples" / "grained_leather" / "cut_000.png") as picture:
        assert picture.size == (64, 64)
    with pytest.raises(UserError, match="are files already"):
        check_examples("mvtec_ad")


@pytest.fixture
def source(tmp_path):
    write_class(tmp_path / "source", "widget")
    return tmp_path / "source"


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "promptmad_jax.prepare", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )


@pytest.mark.smoke
def test_command_names_faults_and_says_where_the_report_is(tmp_path, source):
    crack = source / "widget" / "ground_truth" / "crack" / "000_mask.png"
    write_image(crack, spot(height=50))
    data_dir = tmp_path / "data"
    done = command("--dataset=anomaly_folder", f"--source={source}", f"--data_dir={data_dir}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == (
        "widget/test/crack/000.png: the mask widget/ground_truth/crack/000_mask.png is 24x50,"
        " the image 24x20: left out [mask_size]"
    )
    folder = data_dir / "anomaly_folder" / "1.0.0"
    assert lines[1:] == [
        "widget: 2 train, 2 test images",
        "anomaly_folder: 2 train, 2 test images, 1 problems",
        f"written to {folder}; the report is {folder}/report.json",
    ]
    assert report_of(folder)["problems"][0]["file"] == "widget/test/crack/000.png"
    assert sorted(path.name for path in data_dir.iterdir()) == ["anomaly_folder"]
    assert len(load_image_set("anomaly_folder", str(data_dir), "test", 8)) == 2


def test_command_ends_in_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    done = command(
        "--dataset=anomaly_folder", f"--source={tmp_path}/empty", f"--data_dir={tmp_path}/data"
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: {tmp_path}/empty is empty: expected CLASS/train/good, CLASS/test/DEFECT,"
        " CLASS/ground_truth/DEFECT"
    ]
    done = command("--dataset=anomaly_folder")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "give --data_dir" in done.stderr


def test_no_usable_training_image_leaves_no_data_set(tmp_path, source):
    for path in (source / "widget" / "train" / "good").iterdir():
        path.write_text("no image")
    with pytest.raises(UserError, match="no usable training image"):
        prepare("anomaly_folder", str(tmp_path / "data"), str(source))
    assert not list((tmp_path / "data").iterdir())


def test_wrong_arguments(tmp_path, source):
    data_dir = str(tmp_path / "data")
    with pytest.raises(UserError, match=r"mvtec is unknown; .* anomaly_folder, .* mvtec_ad"):
        prepare("mvtec", data_dir, str(source))
    with pytest.raises(UserError, match="no source is given"):
        prepare("mvtec_ad", data_dir)
    with pytest.raises(UserError, match="takes no --source"):
        prepare("synthetic_mvtec", data_dir, str(source))
    with pytest.raises(UserError, match="takes no --seed"):
        prepare("anomaly_folder", data_dir, str(source), arguments={"seed": 1})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file: give a folder"):
        prepare("anomaly_folder", str(tmp_path / "file"), str(source))


def test_prepared_already_or_changed_or_asked_for(tmp_path, source, capsys):
    data_dir = str(tmp_path / "data")
    folder = prepare("anomaly_folder", data_dir, str(source))
    before = load_image_set("anomaly_folder", data_dir, "train", 8)
    inode = folder.stat().st_ino
    capsys.readouterr()
    assert prepare("anomaly_folder", data_dir, str(source)) == folder
    assert "prepared already" in capsys.readouterr().out
    assert folder.stat().st_ino == inode

    write_image(source / "widget" / "train" / "good" / "new.png", pixels(3))
    prepare("anomaly_folder", data_dir, str(source))
    assert "is replaced by one built from" in capsys.readouterr().out
    assert not (tmp_path / "data" / "resized").joinpath("anomaly_folder-1.0.0").exists()
    after = load_image_set("anomaly_folder", data_dir, "train", 8)
    assert (len(before), len(after)) == (2, 3)
    assert before.images.shape == (2, 8, 8, 3)

    inode = folder.stat().st_ino
    prepare("anomaly_folder", data_dir, str(source), overwrite=True)
    assert folder.stat().st_ino != inode
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        "anomaly_folder",
        "resized",
    ]


def test_a_failed_rebuild_keeps_the_old_data_set(tmp_path, source, monkeypatch):
    data_dir = str(tmp_path / "data")
    prepare("anomaly_folder", data_dir, str(source))

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare_module, "_complete_report", full)
    with pytest.raises(UserError, match=r"cannot be written to .* \(No space left on device\)"):
        prepare("anomaly_folder", data_dir, str(source), overwrite=True)
    assert len(load_image_set("anomaly_folder", data_dir, "train", 8)) == 2


def test_synthetic(tmp_path, capsys):
    data_dir = str(tmp_path / "data")
    folder = prepare("synthetic_mvtec", data_dir, arguments=TINY)
    assert report_of(folder)["images"] == {"test": 5, "train": 1}
    assert len(load_image_set("synthetic_mvtec", data_dir, "test", 16)) == 5
    capsys.readouterr()
    prepare("synthetic_mvtec", data_dir, arguments=TINY)
    assert "prepared already" in capsys.readouterr().out
    prepare("synthetic_mvtec", data_dir, arguments={**TINY, "seed": 5})
    assert report_of(folder)["arguments"]["seed"] == 5


def test_synthetic_of_an_older_version_is_drawn_again(tmp_path, monkeypatch):
    data_dir, version = str(tmp_path / "data"), SyntheticMvtec.VERSION
    monkeypatch.setattr(SyntheticMvtec, "VERSION", "0.9.0")
    monkeypatch.setattr(SyntheticMvtec, "RELEASE_NOTES", {})
    assert prepare("synthetic_mvtec", data_dir, arguments=TINY).name == "0.9.0"
    monkeypatch.setattr(SyntheticMvtec, "VERSION", version)
    assert prepare("synthetic_mvtec", data_dir, arguments=TINY).name == str(version)
    assert find_prepared("synthetic_mvtec", data_dir).version == str(version)


def test_synthetic_command(tmp_path):
    done = command(
        "--dataset=synthetic_mvtec",
        f"--data_dir={tmp_path}",
        *(f"--{name}={value}" for name, value in TINY.items() if name != "class_names"),
        "--class_names=grained_leather",
        "--seed=3",
    )
    assert done.returncode == 0, done.stderr
    assert "synthetic_mvtec: 1 train, 5 test images, 0 problems" in done.stdout
    done = command("--dataset=synthetic_mvtec", f"--data_dir={tmp_path}", "--class_names=kiwi")
    assert done.returncode == 2
    assert done.stderr.startswith("error: synthetic_mvtec: class_names=['kiwi']: choose from")
