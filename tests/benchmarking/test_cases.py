"""Each case once, on a tiny model: the fields are there and fit together."""

import json

import jax
import pytest

from promptmad_jax.benchmarking import inference
from promptmad_jax.benchmarking.measure import Bench
from promptmad_jax.benchmarking.rows import Roof
from promptmad_jax.benchmarking.timing import Budget
from promptmad_jax.benchmarking.training import synthesis, training
from promptmad_jax.config import parse
from promptmad_jax.methods.reconstruction.random_detector import RandomDetector
from promptmad_jax.runtime.config_file import load_config

BATCH = 8
COSTS = {"gflop_per_image", "mb_per_image", "share_of_peak", "floor_operations_s", "floor_bytes_s"}


@pytest.fixture(scope="module")
def config():
    values = load_config("quickstart.py:smoke,onenip")
    values.mesh.data = 1
    values.pseudo_anomaly.textures = "noise"  # Compiles in half the time.
    return parse(values)


@pytest.fixture(scope="module")
def subject(config):
    return RandomDetector(config, "config", 3)


@pytest.fixture
def bench(tmp_path):
    return Bench(Budget(3, sample_s=0.0, limit_s=1.0), Roof(100.0, 10.0), str(tmp_path / "trace"))


def check(row, case, batch_size=BATCH):
    assert row["case"] == case and row["batch_size"] == batch_size
    assert row["samples"] >= 3
    json.dumps(row)


def test_host_to_host(subject, bench, tmp_path):
    (row,) = inference.time_call("inference", subject, subject.host_to_host(BATCH), bench)
    check(row, "inference")
    assert row["images_per_s"] == pytest.approx(BATCH / row["median_s"])
    assert row["compile_s"] > 0
    # 3 classes, 4 x 4 tokens of width 32.
    assert row["bank_mib"] == 3 * 16 * 32 * 4 / 2**20
    assert (row["model"], row["image_size"], row["classes"]) == ("onenip", 64, 3)
    assert list((tmp_path / "trace" / "inference").rglob("*.xplane.pb"))


def test_stages_add_up(subject, bench):
    rows = list(inference.stages(subject, subject.stages(BATCH), BATCH, bench))
    for row, name in zip(rows, ("backbone", "reconstructor", "segmentor"), strict=True):
        check(row, f"stage_{name}")
        assert row.keys() >= COSTS and row["gflop_per_image"] > 0
    # Each share is a median of its own.
    assert sum(row["share_of_time"] for row in rows) == pytest.approx(1, abs=0.5)
    (whole,) = inference.on_device(subject, BATCH, bench)
    check(whole, "inference_device")
    parts = sum(row["gflop_per_image"] for row in rows)
    assert parts == pytest.approx(whole["gflop_per_image"], rel=0.02)
    assert whole["compile_s"] > 0 and whole["program_mib"] > 0


def test_training_steps_compile_nothing_after_the_first(config, subject, bench):
    step = training(subject, BATCH, 12, bench)
    images, _ = subject.images(BATCH)
    synthesized = synthesis(images, config.pseudo_anomaly, bench, step["median_s"])
    check(step, "training")
    assert step["samples"] == 12 and step["compilations_later"] == 0
    assert step.keys() >= COSTS and step["drift"] > 0 and step["cache_mib"] > 0
    check(synthesized, "training_synthesis")
    assert synthesized.keys() >= COSTS and synthesized["mb_per_image"] > 64 * 64 * 3 / 1e6
    share = synthesized["median_s"] / step["median_s"]
    assert synthesized["share_of_step"] == pytest.approx(share)
    # The subject's own arrays outlive the donated state.
    assert all(not leaf.is_deleted() for leaf in jax.tree.leaves(subject.weights))
