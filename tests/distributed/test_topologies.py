"""One device, eight, and several processes train to the same losses and the same metrics.

The command itself runs on 1 x 1 and on 2 x 2 (processes x devices), a worker that keeps nothing on
1 x 8 and 4 x 1. Each has caches of its own, so that nothing is handed on but the data set.
"""

import json
import math
import shutil

import numpy as np
import pytest

from promptmad_jax.runtime.logging import read_metrics
from tests.distributed.processes import ROOT, run

STEPS = 4
WORKER = ROOT / "tests" / "distributed" / "topology_worker.py"
# Sums over the batch are taken in another order. From the second step on, Adam's division by the
# size of a gradient lets that decide the sign of those that are almost zero.
FIRST, LATER = 1e-5, 1e-3


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
    fusion = {"uniad": "reconstruction", "promptmad": "standardized"}[model]
    values = {
        "data.data_dir": copy,
        "model": model,
        "eval.fusion": fusion,
        "train.steps": STEPS,
        "train.log_every": 1,
        "train.checkpoint_every": STEPS,
    }
    overrides = [f"--config.{key}={value}" for key, value in values.items()]
    return ["--config=configs/quickstart.py:smoke", *overrides]


def train(data, folder, model, processes, devices):
    """Runs the command; returns the rows of its steps and metrics.json, and checks who wrote."""
    workdir = folder / f"run{processes}x{devices}"
    arguments = settings(data, folder / f"data{processes}x{devices}", model)
    command = ["-m", "promptmad_jax.train", *arguments, f"--workdir={workdir}"]
    outputs = run(command, processes, devices)
    assert all("report:" not in output for output in outputs[1:])
    assert f"report: {workdir}/report/index.html" in outputs[0]
    rows = read_metrics(workdir / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2, 3, 4]
    hosts = [row for row in rows if row["kind"] == "host"]
    assert len(hosts) == (STEPS if processes > 1 else 0)
    assert all(f"time/{index}" in row for row in hosts for index in range(processes))
    metrics = json.loads((workdir / "metrics.json").read_text())
    return {"losses": [row for row in rows if row["kind"] == "train"], "mean": metrics["mean"]}


def work(data, folder, model, processes, devices):
    """Runs the worker with the constants of the run on one device."""
    output = folder / f"{processes}x{devices}.json"
    arguments = settings(data, folder / f"data{processes}x{devices}", model)
    own = [f"--constants={folder / 'run1x1'}", f"--output={output}"]
    run([str(WORKER), *arguments, *own], processes, devices)
    return json.loads(output.read_text())


def compare(found, expected):
    for step, (one, other) in enumerate(zip(found["losses"], expected["losses"], strict=True)):
        tolerance = LATER if step else FIRST
        assert one["loss"] == pytest.approx(other["loss"], rel=tolerance), step
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=10 * tolerance), step
    assert found["mean"] == pytest.approx(expected["mean"], abs=LATER)


@pytest.mark.parametrize("model", ["uniad", pytest.param("promptmad", marks=pytest.mark.full)])
def test_topologies_agree(data, tmp_path, model):
    single = train(data, tmp_path, model, 1, 1)
    assert all(math.isfinite(row["loss"]) for row in single["losses"])
    assert (
        np.ptp([row["loss"] for row in single["losses"]])
        > 100 * LATER * single["losses"][0]["loss"] / 10
    )
    compare(train(data, tmp_path, model, 2, 2), single)
    compare(work(data, tmp_path, model, 1, 8), single)
    compare(work(data, tmp_path, model, 4, 1), single)
