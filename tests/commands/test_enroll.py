"""A run on good parts alone is given classes and images without training, and they go again."""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from promptmad_jax.commands.begin import begin
from promptmad_jax.commands.enroll import enroll, remove, reviewed_good
from promptmad_jax.commands.evaluate import evaluate_run
from promptmad_jax.commands.prepare import prepare
from promptmad_jax.commands.retrain import retrain
from promptmad_jax.commands.train import run_training
from promptmad_jax.config import parse
from promptmad_jax.configs import quickstart
from promptmad_jax.data.image_files import DEFAULT_READING
from promptmad_jax.methods.method import EvaluationRequest, open_method
from promptmad_jax.methods.reconstruction.assembly import make_detector
from promptmad_jax.methods.reconstruction.splits import class_prompts, load_splits
from promptmad_jax.models.backbone.backbone import build_backbone
from promptmad_jax.models.reconstruction.weights.onenip import join_params_stats
from promptmad_jax.runs import change
from promptmad_jax.runs.base import read_base, shipped_bases
from promptmad_jax.runs.enrolled import FIRST_ROW
from promptmad_jax.runs.memory_file import read_memory
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.errors import UserError
from tests.data.image_trees import write_image

FILES = ("memory.safetensors", "bank.npz")


def parts(folder, level, count):
    """Pictures of one kind: a bright square on a dark ground with noise."""
    rng = np.random.default_rng(level)
    for i in range(count):
        image = rng.integers(0, 40, (64, 64, 3), np.uint8)
        image[20:44, 20:44] += np.uint8(level)
        write_image(folder / f"{i}.png", image)
    return folder


def configuration(root):
    config = quickstart.get_config("smoke")
    config.data.update(dataset="normal_folder", data_dir=str(root / "data"), cache_dir="")
    config.train.steps = 0
    return parse(config)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("enroll")
    for name, level in (("bolt", 100), ("tile", 200)):
        parts(root / "source" / name, level, 6)
    prepare("normal_folder", str(root / "data"), str(root / "source"))
    metrics = run_training(configuration(root), str(root / "run"))
    assert set(metrics["mean"].values()) == {None}
    assert metrics["undefined"]["bolt"]["image_auroc"] == "no test image"
    assert metrics["protocol"]["step"] == 0 and metrics["protocol"]["weights"] == {"memory": 1.0}
    page = (root / "run" / "report" / "index.html").read_text()
    assert "a training-free detector" in page and "No test images of bolt, tile" in page
    return root


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained / "run", tmp_path / "run")
    return Workdir(tmp_path / "run")


def enrolled(run, name, *paths):
    return enroll(str(run.path), name, list(map(str, paths)), DEFAULT_READING)


def contents(run):
    return [(run.path / name).read_bytes() for name in FILES]


def with_added(config):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, added=True))


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    """`retrain` returns the images that it would train on."""

    def begin(config, output, prepare):
        files = Workdir(output)
        prepare(files)
        assert config == with_added(config)
        return load_splits(config, files)

    monkeypatch.setattr("promptmad_jax.commands.retrain.run_training", begin)


def test_a_new_class_leaves_the_others_as_they_are(run, trained, tmp_path, capsys):
    before, memory, bank = run.read_calibration(), read_memory(run).trained, run.read_bank()
    (tmp_path / "nuts").mkdir()
    (tmp_path / "nuts" / "torn.png").write_text("")
    enrolled(run, "nut", parts(tmp_path / "nuts", 150, 5), tmp_path / "nuts" / "0.png")
    out = capsys.readouterr()
    assert "torn.png" in out.err and "nut: 6 images read, enrolled in" in out.out
    after, grown, longer = run.read_calibration(), read_memory(run).trained, run.read_bank()
    for old, new in zip(memory.memory, grown.memory, strict=True):
        assert len(new) == 3 and old.dtype == new.dtype
        np.testing.assert_array_equal(old, new[:2])
    assert set(grown.memory.images[2]) <= {*range(FIRST_ROW, FIRST_ROW + 5)}
    np.testing.assert_array_equal(memory.nearest, grown.nearest)
    np.testing.assert_array_equal(bank[1], longer[1][:2])
    for field in ("normal", "score_range", "thresholds", "scores"):
        old, new = getattr(before, field), getattr(after, field)
        assert new == old | {"nut": new["nut"]}
    assert after.scores["nut"].origin == "5 enrolled" and after.thresholds["nut"].rate == 1 / 6
    assert after.history[-1][1:] == ("enroll", "nut: 5 images")

    predictor = open_method(run.config()).predictor(run, "")
    picture = np.full((64, 64, 3), 150, np.uint8)
    assert predictor.class_names == ("bolt", "tile", "nut")
    assert predictor([picture], "nut")[0].thresholds == after.thresholds["nut"]
    evaluate_run(str(run.path), EvaluationRequest(run))
    again = run.read_calibration()
    assert again.thresholds["bolt"] == before.thresholds["bolt"]
    np.testing.assert_allclose(again.scores["nut"].image, after.scores["nut"].image, rtol=1e-4)

    with pytest.raises(UserError, match="all 1 images are enrolled already"):
        enrolled(run, "NUT", tmp_path / "nuts" / "1.png")
    with pytest.raises(UserError, match=r"images of nut were enrolled .* `promptmad retrain"):
        run_training(configuration(trained), str(run.path))
    splits = retrain(str(run.path), str(tmp_path / "new"))
    names, prompts = splits.train.class_names, class_prompts(splits.train, 0)
    assert names == splits.test.class_names == ("bolt", "nut", "tile") and not len(splits.test)
    np.testing.assert_array_equal(prompts, longer[1][[0, 2, 1]])
    assert len(splits.train) + len(splits.held) == 17
    np.testing.assert_array_equal(np.unique(splits.held.class_ids), [0, 1, 2])
    shutil.rmtree(tmp_path / "new" / "added")
    with pytest.raises(UserError, match="added holds none of the images"):
        load_splits(with_added(run.config()), Workdir(tmp_path / "new"))
    remove(str(run.path), "nut")
    with pytest.raises(UserError, match="no image was enrolled"):
        retrain(str(run.path), str(tmp_path / "new"))
    assert contents(run) == contents(Workdir(trained / "run"))
    assert set(run.read_calibration().gallery) == {"bolt", "tile"}


def test_an_enrolled_class_is_measured_on_another_data_set(run, tmp_path):
    enrolled(run, "nut", parts(tmp_path / "nuts", 150, 5))
    before, source = run.read_calibration(), tmp_path / "source" / "nut"
    for split, level in (("train/good", 150), ("test/good", 150), ("test/torn", 60)):
        parts(source / split, level, 3)
    for i in range(3):
        mask = np.zeros((64, 64), np.uint8)
        mask[20:44, 20:44] = 255
        write_image(source / "ground_truth" / "torn" / f"{i}_mask.png", mask)
    prepare("anomaly_folder", str(tmp_path / "data"), str(source.parent))
    places = {"dataset": "anomaly_folder", "data_dir": str(tmp_path / "data")}
    with pytest.raises(UserError, match=r"would replace what .* give --output"):
        evaluate_run(str(run.path), EvaluationRequest(run, **places))
    request = EvaluationRequest(Workdir(tmp_path / "out"), **places)
    metrics = evaluate_run(str(run.path), request)
    assert metrics["classes"]["nut"]["image_auroc"] == 1
    assert metrics["undefined"]["bolt"]["image_auroc"] == "no test image"
    assert run.read_calibration().thresholds == before.thresholds


def test_reviewed_images_of_a_trained_class(run, trained, tmp_path):
    before = run.read_calibration()
    images = sorted(parts(tmp_path / "new", 110, 4).iterdir())
    out = tmp_path / "out"
    out.mkdir()
    rows = [{"file": str(image), "class_name": "bolt"} for image in images]
    (out / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = ("yes", "Yes", "no", "")
    lines = [f"{image},{answer}" for image, answer in zip(images, answers, strict=True)]
    (out / "reviewed.csv").write_text("\n".join(["file,good", *lines]))
    good = reviewed_good(str(out), "Bolt")
    assert good == [str(image) for image in images[:2]]
    after = enrolled(run, "Bolt", *good)
    assert len(after.scores["bolt"].image) == len(before.scores["bolt"].image) + 2
    assert after.scores["bolt"].origin.endswith(" + 2 enrolled")
    assert after.thresholds["tile"] == before.thresholds["tile"]
    assert (read_memory(run).trained.memory.images[0] >= FIRST_ROW).any()
    remove(str(run.path), "bolt")
    assert contents(run) == contents(Workdir(trained / "run"))
    assert run.read_calibration().thresholds == before.thresholds


def test_a_run_that_begins_with_what_another_has_learned(run, tmp_path):
    new = Workdir(tmp_path / "new")
    nuts = parts(tmp_path / "nuts", 150, 3)
    begin(str(new.path), str(run.path), bit_depth=12)
    calibration = enrolled(new, "nut", nuts)
    assert list(calibration.thresholds) == ["nut"] and new.read_bank()[0] == ("nut",)
    assert calibration.weights == run.read_calibration().weights
    assert new.levels().high == 4095 and not new.config().data.dataset
    splits = retrain(str(new.path), str(tmp_path / "other"), steps=3)
    assert (len(splits.train), len(splits.held), len(splits.test)) == (2, 1, 0)
    assert splits.train.levels == new.levels() and splits.train.class_names == ("nut",)
    old, own = (open_method(files.config()).base(files).arrays for files in (run, new))
    jax.tree.map(np.testing.assert_array_equal, old, own)
    begin(str(new.path), str(run.path))
    for name, message in (
        ("efficientnetv2_nano", f"that began with --base={run.path}; leave --base out"),
        ("resnet50", "neither a run nor a known backbone"),
    ):
        with pytest.raises(UserError, match=message):
            begin(str(new.path), name)
    for request, message in (
        (EvaluationRequest(new), "has no data set"),
        (EvaluationRequest(new, dataset="normal_folder", data_dir=run.config().data.data_dir),
         "no test image of nut"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            evaluate_run(str(new.path), request)


def test_the_shipped_bases_fit_their_networks():
    for name in shipped_bases():
        base = read_base(name)
        backbone = build_backbone(base.config.backbone)
        network = make_detector(base.config, backbone, None).network
        shapes = join_params_stats(*jax.eval_shape(network.init, jax.random.key(0)))
        assert {k: x.shape for k, x in shapes.items()} == {
            k: x.shape for k, x in base.arrays.items()
        }
        assert base.config.backbone.name == name and base.calibration.step


def test_an_interruption_leaves_the_old_run_or_the_new_one(run, tmp_path, monkeypatch):
    nuts = parts(tmp_path / "nuts", 150, 3)
    before = contents(run)

    def full(path, data):
        if pathlib.Path(path).name == "3":
            raise OSError(28, "No space left on device")
        pathlib.Path(path).parent.mkdir(exist_ok=True)
        pathlib.Path(path).write_bytes(data)

    with monkeypatch.context() as patch:
        patch.setattr(change, "write_bytes_atomic", full)
        with pytest.raises(UserError, match=r"No space left on device.*the run is as it was"):
            enrolled(run, "nut", nuts)
    assert contents(run) == before and not (run.path / change.STAGE).exists()

    moved, real = [], type(run.path).replace

    def killed(self, target):
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(target)
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(run.path), "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            enrolled(run, "nut", nuts)
    assert contents(run)[0] == before[0] and contents(run)[1] != before[1]
    assert run.config() and "nut" in run.read_calibration().thresholds
    assert read_memory(run).trained.memory.patches.shape[0] == 3


def test_what_cannot_be_enrolled_is_said(run, tmp_path):
    one = write_image(tmp_path / "one.png", np.zeros((8, 8, 3), np.uint8))
    for name, paths, message in (
        ("nut", (one, one), "1 usable image; .* at least two different ones"),
        ("a/b", (one,), "cannot be called 'a/b'"),
        ("nut", (), "no images given"),
    ):
        with pytest.raises(UserError, match=message):
            enrolled(run, name, *paths)
    with pytest.raises(UserError, match=r"no image was enrolled for 'bold'.*did you mean bolt"):
        remove(str(run.path), "bold")
    stored = run.path / "checkpoints" / "config.json"
    config = json.loads(stored.read_text())
    for group, setting, value in (
        ("memory", "patches", 0),
        ("train", "steps", 1),
        ("eval", "fusion", "segmentor"),
        ("reconstructor", "enabled", True),
    ):
        config[group][setting] = value
    stored.write_text(json.dumps(config))
    with pytest.raises(UserError, match="has no memory of normal patches"):
        enrolled(run, "nut", one)
