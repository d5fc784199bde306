"""prepare, train, kill, resume, evaluate, predict: the commands themselves, shrunk."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tests.running import command, environment, run, wait_for

ROOT = pathlib.Path(__file__).parents[2]
SEED_STEPS = 6
# Every part of PromptMAD; the quickstart leaves some out.
WHOLE = "--config=study/parts.py:row=whole,base=quickstart,smoke"


def train_args(data, workdir, **overrides):
    overrides = {"data.data_dir": data, "train.steps": SEED_STEPS} | overrides
    return (
        WHOLE,
        f"--workdir={workdir}",
        *(f"--config.{key}={value}" for key, value in overrides.items()),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    run(
        "prepare",
        "--dataset=synthetic_mvtec",
        f"--data_dir={directory}",
        f"--examples={directory / 'examples'}",
        "--image_size=64",
        "--train_per_class=6",
        "--test_good_per_class=2",
        "--test_per_defect=1",
        "--class_names=wood_board,hex_bolt",
    )
    return directory


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "with space"
    text = run("train", *train_args(data, workdir))
    assert "wood_board" in text and f"report: {workdir}/report/index.html" in text
    return workdir


@pytest.mark.smoke
def test_training_writes_what_it_promises(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics["classes"]) == {"hex_bolt", "wood_board"}
    for values in (*metrics["classes"].values(), metrics["mean"]):
        for kind in ("auroc", "ap", "f1max"):
            assert 0 <= values[f"image_{kind}"] <= 1 and 0 <= values[f"pixel_{kind}"] <= 1
        assert 0 <= values["pixel_aupro"] <= 1
    parts = {"memory", "reconstruction", "coarse", "refined", "corrected"}
    assert set(metrics["maps"]) == parts and sum(metrics["protocol"]["weights"].values()) == 1
    assert metrics["protocol"]["step"] == SEED_STEPS
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["config"]["name"] == "quickstart_whole" and manifest["packages"]["jax"]
    assert manifest["frozen"] == {"backbone.weights": None}
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if r["kind"] == "train"] == [2, 4, 6]
    assert [r["step"] for r in rows if r["kind"] == "eval"] == [6]
    assert list((finished / "tensorboard").iterdir())
    calibration = json.loads((finished / "calibration.json").read_text())
    bank = np.load(finished / "bank.npz").files
    fields = {*metrics, *metrics["protocol"], *manifest, *manifest["devices"], *calibration, *bank}
    documented = (ROOT / "docs" / "outputs.md").read_text()
    assert not [field for field in fields.union(*rows) if f"`{field}`" not in documented]
    assert "data:image" in (finished / "report" / "index.html").read_text()


def test_evaluate_repeats_the_metrics_and_adds_other_prompts(finished, tmp_path):
    run("evaluate", f"--workdir={finished}", f"--output={tmp_path}", "--prompts=2")
    again = json.loads((tmp_path / "metrics.json").read_text())
    prompts = again.pop("prompts")
    assert json.dumps(again, indent=2) + "\n" == (finished / "metrics.json").read_text()
    rebuilt = prompts["maps"]["reconstruction"]["mean"]["pixel_ap"]
    assert prompts["count"] == 2 and rebuilt["std"] > 0
    assert prompts["mean"]["pixel_ap"]["max"] >= again["mean"]["pixel_ap"]


def start_training(data, workdir):
    return subprocess.Popen(
        command("train", *train_args(data, workdir)),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_killed_told_to_stop_and_damaged_a_run_ends_as_an_uninterrupted_one(
    finished, data, tmp_path
):
    workdir = tmp_path / "killed"
    checkpoints = workdir / "checkpoints"
    own = tmp_path / "data"
    shutil.copytree(data / "synthetic_mvtec", own / "synthetic_mvtec")
    process = start_training(own, workdir)
    wait_for(process, (own / "feature_cache").exists)
    process.send_signal(signal.SIGKILL)  # before or while the memory is made
    process.communicate()
    assert not any(path.name.isdigit() for path in checkpoints.iterdir())

    process = start_training(data, workdir)
    wait_for(process, (checkpoints / "2").exists)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (workdir / "metrics.json").exists()

    process = start_training(data, workdir)
    # The log is opened just before the first step is compiled.
    wait_for(process, lambda: len(list((workdir / "tensorboard").iterdir())) == 2)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate()
    assert process.returncode == 75 and "is saved" in text and "Traceback" not in text
    steps = sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdigit())
    before_it, newest = steps[-2:]
    assert f"(that of {newest} is saved)" in text and newest % 2

    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    text = run("train", *train_args(data, workdir, **{"train.seed": 1}), status=2)
    assert "train.seed was 0 and is 1" in text
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before

    part = max((checkpoints / str(newest)).rglob("*"), key=os.path.getsize)
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    text = run("train", *train_args(data, workdir))
    name = part.relative_to(checkpoints / str(newest))
    assert f"{checkpoints}/{newest} is damaged: {name} was changed" in text
    assert f"resumed from step {before_it} of {SEED_STEPS}" in text
    assert (workdir / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()


def test_predict_files_and_folders(finished, tmp_path):
    folder = tmp_path / "parts"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(folder / "a.png")
    Image.fromarray(rng.integers(0, 255, (40, 30), dtype=np.uint8)).save(folder / "sub" / "a.jpg")
    (folder / "bad.png").write_text("not an image")
    output = tmp_path / "out"
    flags = f"--workdir={finished}", "--class_name=wood_board", f"--output={output}"
    text = run("predict", *flags, str(folder))
    assert "bad.png" in text and "2 images scored" in text
    lines = (output / "scores.jsonl").read_text().splitlines()
    first, bad, second = map(json.loads, lines)
    assert "not an image" in bad["error"]
    for row, shape in ((first, (50, 70)), (second, (40, 30))):
        anomaly_map = np.load(output / row["map"])
        assert anomaly_map.dtype == np.float32 and anomaly_map.shape == shape
        assert Image.open(output / row["overlay"]).size == shape[::-1]
        verdict = "defective" if row["score"] > row["threshold"] else "normal"
        assert row["verdict"] == ("unknown" if row["novelty"] > 1 else verdict) and row["reason"]


def test_an_exported_run_needs_no_model_code(finished, tmp_path):
    """Another installation, without the models, finds the same; a damaged artifact is named."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)).save(
        tmp_path / "part.png"
    )
    artifact, classes = tmp_path / "artifact", ("--class_name=hex_bolt", str(tmp_path / "part.png"))
    flags = "--platforms=cpu,tpu", "--batch_sizes=1", "--compiled"
    run("export", f"--workdir={finished}", f"--output={artifact}", *flags)
    run("predict", f"--workdir={finished}", f"--output={tmp_path / 'a'}", *classes)
    shutil.copytree(ROOT / "promptmad_jax", tmp_path / "copy" / "promptmad_jax")
    for folder in ("models", "methods", "training", "losses"):
        shutil.rmtree(tmp_path / "copy" / "promptmad_jax" / folder)
    argv = command("predict", f"--export={artifact}", f"--output={tmp_path / 'b'}", *classes)
    elsewhere = environment() | {"PYTHONPATH": str(tmp_path / "copy")}
    done = subprocess.run(argv, env=elsewhere, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    here, there = (json.loads((tmp_path / x / "scores.jsonl").read_text()) for x in "ab")
    assert here["verdict"] == there["verdict"] and here["regions"] == there["regions"]
    np.testing.assert_allclose(there["score"], here["score"], rtol=1e-5)
    weights = artifact / "arrays.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    text = run("predict", f"--export={artifact}", f"--output={tmp_path / 'c'}", *classes, status=2)
    assert "arrays.safetensors is damaged: its checksum differs" in text


def test_predict_mistakes(finished, tmp_path):
    image, out = tmp_path / "part.png", tmp_path / "out"
    Image.new("RGB", (20, 20)).save(image)
    for workdir, output, class_name, path, message in (
        (finished, out, "screw", image, "hex_bolt, wood_board"),
        (finished, out, "auto", tmp_path / "no.png", "no.png does not exist"),
        (finished, tmp_path, "auto", image, "choose another output folder"),
        (tmp_path, tmp_path, "auto", "x", "holds no trained model"),
    ):
        flags = f"--workdir={workdir}", f"--output={output}", f"--class_name={class_name}"
        text = run("predict", *flags, str(path), status=2)
        assert message in text and "Traceback" not in text
    assert not out.exists()


def test_the_python_example_of_the_readme(finished, data):
    [code] = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    for name, folder in (("run", finished), ("examples", data / "examples")):
        code = code.replace(f"workdir/quickstart/{name}", str(folder))
    shown = "\nprint(result.map.shape, result.map.dtype, detector.class_names)"
    done = subprocess.run(
        [sys.executable, "-c", code + shown], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r"(normal|defective|unknown) \S+ \S+ \(", done.stdout)
    assert "(64, 64) float32 ('hex_bolt', 'wood_board')" in done.stdout


def test_onenip_and_its_weights_in_a_file(finished, data, tmp_path):
    config = (
        "--config=quickstart.py:smoke,onenip",
        f"--config.data.data_dir={data}",
        "--config.train.steps=2",
    )
    workdir, weights, out = tmp_path / "run", tmp_path / "w.safetensors", tmp_path / "out"
    run("train", *config, f"--workdir={workdir}")
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert set(metrics["maps"]) == {"reconstruction", "coarse"}

    assert "OneNIP" in run("convert", f"--input={workdir}", f"--output={weights}")
    run("evaluate", *config, f"--weights={weights}", f"--output={out}")
    again = json.loads((out / "metrics.json").read_text())
    assert again["classes"] == metrics["classes"] and again["compat"] == metrics["compat"]
    assert again["protocol"]["checkpoint"] == "none: the weights of w.safetensors"

    said = run("compare", str(finished), str(workdir), f"--output={tmp_path / 'c'}", "--pictures=2")
    assert "no pictures" not in said
    assert (tmp_path / "c" / "index.html").read_text().count("<img") == 2 * (2 + 2)

    image = tmp_path / "part.png"
    Image.new("RGB", (40, 40), (90, 80, 70)).save(image)
    given = (*config, f"--weights={weights}", "--class_name=part", f"--output={tmp_path / 'p'}")
    run("predict", *given, f"--prompt_image={image}", str(image))
    row = json.loads((tmp_path / "p" / "scores.jsonl").read_text())
    assert np.isfinite(row["score"]) and "verdict" not in row
    assert "--prompt_image" in run("predict", *given, str(image), status=2)


def test_uniad_trains_resumes_and_gives_one_map(data, tmp_path):
    config = (
        "--config=quickstart.py:smoke,onenip",
        f"--config.data.data_dir={data}",
        "--config.model=uniad",
        "--config.eval.fusion=reconstruction",
        "--config.eval.checkpoint=held_out",
        f"--workdir={tmp_path}",
    )
    run("train", *config, "--config.train.steps=2")
    assert "resumed from step 2 of 3" in run("train", *config, "--config.train.steps=3")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["maps"]["reconstruction"]["mean"] == metrics["mean"]
    assert set(metrics["maps"]) == {"reconstruction"}
    assert metrics["protocol"]["fusion"] == "reconstruction"
    scores = metrics["protocol"]["checkpoint_scores"]
    assert set(scores) == {"2", "3"}
    assert scores[str(metrics["protocol"]["step"])] == max(scores.values())
    assert set(metrics["protocol"]["compat_left_out"]) == {"onenip_fusion"}
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    # The checkpoint that was chosen is logged once, be it new or that of the first run.
    evaluated = [row["step"] for row in rows if row["kind"] == "eval"]
    assert evaluated == sorted({2, metrics["protocol"]["step"]})
    losses = [row for row in rows if row["kind"] == "train"]
    assert losses and all(row["loss"] == 4 * row["feature"] for row in losses)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.train.bach_size=4", "did you mean batch_size?"),
        ("--config.train.batch_size=x", "batch_size"),
        ("--config.model=unet", "must be 'promptmad', 'onenip'"),
    ],
)
def test_train_refuses_wrong_settings(data, tmp_path, override, message):
    text = run("train", *train_args(data, tmp_path), override, status=2)
    assert message in text and "Traceback" not in text


def test_train_without_data_names_the_way_out(tmp_path):
    text = run("train", *train_args(tmp_path / "nothing", tmp_path / "run"), status=2)
    assert "promptmad prepare" in text and "Traceback" not in text
