"""The command itself: JSON lines on standard output, a table and refusals on standard error."""

import json
import subprocess
import sys

import pytest

from promptmad_jax.benchmarking.plan import PLAIN_CASES, Selection, plan
from promptmad_jax.methods.reconstruction.method import Reconstruction
from promptmad_jax.runtime.errors import UserError
from tests.running import environment

TINY = "--config=quickstart.py:smoke,onenip"
FIELDS = {"case", "batch_size", "median_s", "images_per_s", "peak_rss_mib", "device"}


def run(*arguments, status=0):
    command = [sys.executable, "-m", "promptmad_jax.benchmark", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == status, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def select(what="inference", cases=(), batch_sizes=(), training_batch=8, sweep=None, multiple=16):
    available = PLAIN_CASES | dict(Reconstruction.benchmark_cases)
    own = training_batch, "backbone.dtype", multiple
    return Selection((what,), cases, batch_sizes, sweep, available, *own)


def test_inference_in_a_process_of_its_own():
    rows, table = run(
        "--what=inference", TINY, "--cases=inference", "--batch_size=2", "--samples=3",
        "--peak_gflops=100",
    )  # fmt: skip
    (row,) = rows
    assert row.keys() >= FIELDS
    assert row["case"] == "inference" and row["batch_size"] == 2 and row["classes"] == 15
    assert row["images_per_s"] == pytest.approx(2 / row["median_s"], rel=1e-4)
    assert 100 < row["peak_rss_mib"] < 4000 and row["backbone"] == "efficientnetv2_nano"
    assert "inference" in table and row["device"] in table


@pytest.mark.full
def test_startup_from_process_start_to_map():
    rows, _ = run("--what=startup", TINY, "--samples=1", "--classes=2")
    assert [row["case"] for row in rows] == ["import", "predict_cold", "predict_warm"]
    assert all(row.keys() >= FIELDS for row in rows)
    loading, cold, warm = rows
    assert loading["interpreter_s"] > 0 and loading["median_s"] < cold["median_s"]
    assert warm["peak_rss_mib"] > 100 and warm["compilation_cache_mib"] > 0.1


def test_refusals():
    _, said = run("--what=inference", "--batch_size=0", TINY, status=2)
    assert "error: --batch_size=0" in said
    for values, message in (
        ({"what": "speed"}, "speed: it can be metrics, inference"),
        ({"cases": ("import",)}, "import: it can be inference"),
    ):
        with pytest.raises(UserError, match=message):
            select(**values)
    _, said = run("--what=inference", status=2)
    assert "it can be metrics; all but metrics need a --config" in said
    with pytest.raises(UserError, match="--sweep=classes needs a --config"):
        Selection(("metrics",), (), (), "classes", PLAIN_CASES)


def cases(**values):
    return [(case.name, case.batch_size) for case in plan(select(**values))]


def test_cases_of_a_plan():
    assert cases(batch_sizes=(1, 8)) == [
        ("inference", 1),
        ("inference", 8),
        ("inference_device", 1),
        ("inference_device", 8),
        ("stages", 1),
        ("stages", 8),
        ("bank", 1),
    ]
    assert [size for _, size in cases(cases=("inference",))] == [1, 8, 32, 256]
    assert cases(what="training") == [("training", 8)]
    alone = cases(what="metrics", batch_sizes=(4,), cases=("metrics",))
    assert alone == [("metrics", 1)]


def test_points_of_a_sweep():
    def points(sweep, **own):
        selection = select(sweep=sweep, batch_sizes=(8,), cases=("inference",), **own)
        return [case.point for case in plan(selection)]

    assert points(None) == [""]
    sizes = [f"--config.data.image_size={size}" for size in (224, 256, 320, 448)]
    assert points("resolution") == sizes
    fitting = points("resolution", multiple=14)
    assert fitting == [f"--config.data.image_size={size}" for size in (224, 252, 308, 448)]
    assert points("classes") == [f"--classes={count}" for count in (15, 150, 1500)]
    dtypes = [f"--config.backbone.dtype={dtype}" for dtype in ("float32", "bfloat16")]
    assert points("dtype") == dtypes
    assert points("devices") == [f"--config.mesh.data={count}" for count in (1, 2, 4, 8)]
