"""One device, eight, and several processes train to the same losses and the same metrics.

The command itself runs on 2 x 2 (processes x devices), a worker that keeps nothing on 1 x 1, 1 x 8
and, with `-m full`, 4 x 1. The first two have caches of their own, so that nothing is handed on but
the data set; 4 x 1 is given those of 2 x 2. Metrics are compared here for 2 x 2, and in
docs/pods.md for all.
"""

import json
import shutil

import numpy as np
import pytest

from promptmad_jax.runtime.metrics_log import read_metrics
from tests.distributed.processes import ROOT, run

STEPS = 4
WORKER = ROOT / "tests" / "distributed" / "topology_worker.py"
# Sums over the batch are taken in another order. From the second step on, Adam's division by the
# size of a gradient lets that decide the sign of those that are almost zero.
FIRST, LATER = 1e-5, 1e-3


CONFIGS = {
    "uniad": ("quickstart.py:smoke,onenip", "reconstruction"),
    "promptmad": ("study/parts.py:row=whole,base=quickstart,smoke", "weighted"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    sizes = ("--image_size=64", "--train_per_class=6", "--test_good_per_class=2")
    classes = ("--test_per_defect=1", "--class_names=wood_board,hex_bolt")
    where = ("--dataset=synthetic_mvtec", f"--data_dir={directory}")
    run(["-m", "promptmad_jax.prepare", *where, *sizes, *classes], 1)
    return directory


def settings(data, copy, model):
    shutil.copytree(data, copy)
    config, fusion = CONFIGS[model]
    values = {
        "data.data_dir": copy,
        "model": model,
        "eval.fusion": fusion,
        "train.steps": STEPS,
        "train.log_every": 1,
        "train.checkpoint_every": STEPS,
    }
    overrides = [f"--config.{key}={value}" for key, value in values.items()]
    return [f"--config={config}", *overrides]


def train(data, folder, model):
    """Runs the command on 2 x 2; returns its rows and metrics, and checks who wrote."""
    workdir = folder / "run"
    arguments = settings(data, folder / "data2x2", model)
    command = ["-m", "promptmad_jax.train", *arguments, f"--workdir={workdir}"]
    outputs = run(command, 2, 2)
    assert f"report: {workdir}/report/index.html" in outputs[0] and "report:" not in outputs[1]
    rows = read_metrics(workdir / "metrics.jsonl")
    losses = [row for row in rows if row["kind"] == "train"]
    hosts = [row for row in rows if row["kind"] == "host"]
    assert [row["step"] for row in losses] == [row["step"] for row in hosts] == [1, 2, 3, 4]
    assert all({"time/0", "time/1", "data_wait_s/1"} <= row.keys() for row in hosts)
    metrics = json.loads((workdir / "metrics.json").read_text())
    return {"losses": losses, "mean": metrics["mean"]}


def work(data, folder, model, processes, devices, *arguments):
    """Runs the worker; returns what it found on each mesh."""
    name = f"{processes}x{devices}"
    output = folder / f"{name}.json"
    given = [*settings(data, folder / f"data{name}", model), f"--workdir={folder / f'run{name}'}"]
    run([str(WORKER), *given, *arguments, f"--output={output}"], processes, devices)
    return json.loads(output.read_text())


def compare(found, expected):
    for step, (one, other) in enumerate(zip(found["losses"], expected["losses"], strict=True)):
        tolerance = LATER if step else FIRST
        assert one["loss"] == pytest.approx(other["loss"], rel=tolerance), step
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=10 * tolerance), step
    if found["mean"]:
        assert found["mean"] == pytest.approx(expected["mean"], abs=LATER)


@pytest.mark.parametrize("model", ["uniad", pytest.param("promptmad", marks=pytest.mark.full)])
def test_topologies_agree(data, tmp_path, model):
    two_by_two = train(data, tmp_path, model)
    single, eight = work(data, tmp_path, model, 1, 8, "--devices=1", "--devices=8")
    losses = [row["loss"] for row in single["losses"]]
    assert np.isfinite(losses).all() and np.ptp(losses) > 100 * FIRST
    others = [two_by_two, eight]
    if model == "promptmad":
        # Sums as 2 x 2 does, over four devices: not worth its processes but on demand.
        others += work(tmp_path / "data2x2", tmp_path, model, 4, 1, "--evaluated=0")
    for found in others:
        compare(found, single)
