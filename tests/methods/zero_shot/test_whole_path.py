"""prepare, train, kill, resume, evaluate, report, predict of zero-shot detectors: the commands."""

import json
import signal
import subprocess

import numpy as np
import pytest
from PIL import Image

from promptmad_jax.commands.prepare import prepare
from tests.data.published_trees import regions, write_visa
from tests.distributed import processes
from tests.running import command, environment, run, wait_for

STEPS = 4
STATES = ["normal", "scratch", "stain", "crack", "hole"]


def train_args(data, workdir, name="dapo_mvtec_to_visa", **overrides):
    overrides = {"data.data_dir": data} | overrides
    return (
        f"--config={name}.py:smoke",
        f"--workdir={workdir}",
        *(f"--config.{key}={value}" for key, value in overrides.items()),
    )


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "dapo"
    text = run("train", *train_args(data, workdir))
    assert "TRAINED ON THE TEST SPLIT OF synthetic_mvtec" in text
    assert "wood_board" in text and f"report: {workdir}/report/index.html" in text
    return workdir


def metrics_of(workdir):
    return json.loads((workdir / "metrics.json").read_text())


def test_training_writes_what_it_promises(finished):
    metrics = metrics_of(finished)
    assert set(metrics["classes"]) == {"wood_board"} and metrics["protocol"]["step"] == STEPS
    assert "thresholds" not in metrics and metrics["protocol"]["compat"] == {}
    assert "for the class token" in metrics["protocol"]["image_score"]
    for block in (metrics["multi_type"][name] for name in ("filtered", "unfiltered")):
        product = block["products"]["wood_board"]
        assert 0 <= block["mean"]["types_auroc"] <= 1
        assert sum(map(sum, product["confusion"]["pixels"])) == 11 * 64 * 64
    filtered = metrics["multi_type"]["filtered"]
    assert sorted(filtered["products"]["wood_board"]["states"]) == sorted(STATES)
    assert sorted(filtered["confusion"]["names"]) == sorted(STATES)
    assert len(metrics["multi_type"]["unfiltered"]["confusion"]["names"]) == 18
    assert metrics["multi_type"]["words"]["loose thread"] == "loose thread"


def test_manifest_says_what_was_trained_on(finished):
    manifest = json.loads((finished / "manifest.json").read_text())
    fact = manifest["trained_on_test_split"]
    assert fact["classes"] == ["hex_bolt"] and fact["images"] == 11 and fact["defective"] == 8
    assert manifest["frozen"] == {"clip.weights": None}
    assert sorted(manifest["trained_words"]) == ["bent", "broken", "rust", "stripped thread"]
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    losses = [row for row in rows if row["kind"] == "train"]
    assert [row["step"] for row in losses] == [2, 4]
    assert {"image", "focal", "normal_dice", "defect_dice"} <= losses[0].keys()


def test_report_shows_types_words_and_confusion(finished):
    page = (finished / "report" / "index.html").read_text()
    for piece in ('id="types"', "types-legend", "true state", "TRAINED ON THE TEST SPLIT"):
        assert piece in page
    assert page.count("predicted types of wood_board/test/") == 5
    before = page
    run("report", f"--workdir={finished}")
    again = (finished / "report" / "index.html").read_text()
    assert again.count("<img") == before.count("<img")


def test_evaluate_repeats_the_metrics(finished, tmp_path):
    run("evaluate", f"--workdir={finished}", f"--output={tmp_path}")
    assert (tmp_path / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()
    manifests = [json.loads((path / "manifest.json").read_text()) for path in (tmp_path, finished)]
    assert manifests[0] == manifests[1]


def test_evaluate_on_another_data_set(finished, tmp_path):
    """Products and types that the run has not seen, among them images of several types."""
    data = tmp_path / "data"
    defects = {"pcb1": [("bent", regions(1, 1)), ("melt,scratch", regions(2, 3, 2))]}
    prepare("visa", str(data), str(write_visa(tmp_path / "VisA", defects)))
    target = ("--dataset=visa", f"--data_dir={data}")
    run("evaluate", f"--workdir={finished}", *target, f"--output={tmp_path / 'out'}")
    metrics = metrics_of(tmp_path / "out")
    assert set(metrics["classes"]) == {"pcb1"} and metrics["protocol"]["step"] == STEPS
    states = metrics["multi_type"]["filtered"]["products"]["pcb1"]["states"]
    assert set(states) == {"normal", "bent", "melt", "scratch"}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["config"]["data"]["dataset"] == "visa"
    assert manifest["trained_on_test_split"]["classes"] == ["hex_bolt"]


def test_a_killed_run_ends_as_an_uninterrupted_one(finished, data, tmp_path):
    process = subprocess.Popen(
        command("train", *train_args(data, tmp_path)),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(process, (tmp_path / "checkpoints" / "2").exists)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "metrics.json").exists()
    assert f"resumed from step 2 of {STEPS}" in run("train", *train_args(data, tmp_path))
    assert (tmp_path / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()


def test_two_processes_get_the_same_result(finished, data, tmp_path):
    arguments = ["-m", "promptmad_jax.train", *train_args(data, tmp_path)]
    outputs = processes.run(arguments, 2)
    assert "report:" in outputs[0] and "report:" not in outputs[1]
    # Sums over the batch are taken in another order.
    alone, together = metrics_of(finished), metrics_of(tmp_path)
    assert together["mean"] == pytest.approx(alone["mean"], abs=1e-3)
    for name in ("filtered", "unfiltered"):
        expected = alone["multi_type"][name]["mean"]
        assert together["multi_type"][name]["mean"] == pytest.approx(expected, abs=1e-3)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(0)
    for name, shape in (("a.png", (50, 70, 3)), ("b.jpg", (40, 30))):
        Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(folder / name)
    return folder


def predict(output, parts, defects, *args):
    text = run("predict", *args, f"--defects={defects}", f"--output={output}", str(parts))
    assert "2 images scored" in text
    return [json.loads(line) for line in (output / "scores.jsonl").read_text().splitlines()]


def test_predict_with_new_words(finished, parts, tmp_path):
    workdir = f"--workdir={finished}"
    rows = predict(tmp_path / "1", parts, "scratch, dent,missing cap", workdir)
    for row, shape in zip(rows, [(50, 70), (40, 30)], strict=True):
        assert list(row["types"]) == ["scratch", "dent", "missing cap"]
        assert row["types"][row["type"]] == max(row["types"].values())
        assert 0 <= row["score"] <= 1 and row["class_name"] == "object"
        assert np.load(tmp_path / "1" / row["map"]).shape == shape
        assert Image.open(tmp_path / "1" / row["types_picture"]).size == shape[::-1]
    # Texts are kept, by what was asked for.
    others = predict(tmp_path / "2", parts, "scratch,rust", workdir)
    assert len(list((finished / "text_cache").iterdir())) == 2
    maps = [np.load(tmp_path / n / r[0]["map"]) for n, r in (("1", rows), ("2", others))]
    assert np.abs(maps[0] - maps[1]).max() > 1e-3


def test_multiads_and_the_floor(finished, data, parts, tmp_path):
    run("train", *train_args(data, tmp_path / "multiads", "multiads_visa_to_mvtec"))
    run("train", *train_args(data, tmp_path / "floor", "clip_zero_shot"))
    names = ("multiads", "floor")
    multiads, floor = (metrics_of(tmp_path / name) for name in names)
    assert multiads["protocol"]["step"] == STEPS and floor["protocol"]["step"] == 0
    for metrics in (multiads, floor):
        assert metrics["multi_type"]["filtered"]["mean"]["auroc"] > 0
    assert any((data / "feature_cache").iterdir())
    # Nothing is trained: neither a run nor a data set is needed.
    config = "--config=clip_zero_shot.py:smoke"
    rows = predict(tmp_path / "out", parts, "scratch,dent", config)
    assert {row["type"] for row in rows} <= {"scratch", "dent"}
    refused = f"--output={tmp_path / 'refused'}"
    mistake = run("predict", f"--workdir={finished}", refused, str(parts), status=2)
    assert "give --defects" in mistake and "Traceback" not in mistake
    assert "give --defects" in run("predict", config, refused, str(parts), status=2)
    auto = ("--class_name=auto", "--defects=dent")
    mistake = run("predict", config, *auto, refused, str(parts), status=2)
    assert "--class_name=auto chooses among the classes of a run" in mistake
    assert not (tmp_path / "refused").exists()
    mistake = run("evaluate", f"--workdir={finished}", "--taxonomy=folders", status=2)
    assert "--dataset and --taxonomy go with --output" in mistake
