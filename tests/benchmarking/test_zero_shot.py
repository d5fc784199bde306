"""The cases of zero-shot detectors, on small towers."""

import json
from dataclasses import replace

import jax
import pytest

from promptmad_jax.benchmarking import inference
from promptmad_jax.benchmarking.measure import Bench
from promptmad_jax.benchmarking.plan import PLAIN_CASES, Selection, plan
from promptmad_jax.benchmarking.rows import Roof
from promptmad_jax.benchmarking.timing import Budget
from promptmad_jax.benchmarking.training import training
from promptmad_jax.config import parse
from promptmad_jax.methods.zero_shot.method import ZeroShot
from promptmad_jax.methods.zero_shot.random_detector import RandomZeroShot
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.errors import UserError

BENCH = Bench(Budget(3, sample_s=0.0, limit_s=1.0), Roof(100.0, 10.0))


@pytest.fixture(scope="module")
def config():
    config = parse(load_config("dapo_visa_to_mvtec.py:smoke"))
    clip = replace(config.clip, layers=2, width=16, projection=16)
    return replace(config, clip=clip, dapo=replace(config.dapo, taps=(1, 2)))


@pytest.fixture(scope="module")
def subject(config):
    return RandomZeroShot(config, "random")


def test_inference(subject):
    (host,) = inference.time_call("inference", subject, subject.host_to_host(3), BENCH)
    devices = jax.device_count()
    assert host["case"] == "inference" and host["batch_size"] % devices == 0
    assert host["images_per_s"] == pytest.approx(host["batch_size"] / host["median_s"])
    assert host["image_size"] == 64 and host["types"] == len(subject.words) > 3
    (device,) = inference.on_device(subject, 8, BENCH)
    assert device["case"] == "inference_device" and device["gflop_per_image"] > 0
    (states,) = inference.time_call("states", subject, subject.per_model(), BENCH)
    assert states["images_per_s"] is None and states["median_s"] > 0
    for row in (host, device, states):
        assert row["samples"] >= 3
        json.dumps(row)


@pytest.mark.parametrize("cached", [False, True])
def test_training(config, subject, cached):
    if cached:
        dapo = replace(config.dapo, image_tokens=0, prompts=0, text_tokens=0)
        subject = RandomZeroShot(replace(config, dapo=dapo), "random")
    assert subject.assembly.caches_images == cached
    row = training(subject, 8, 4, BENCH)
    assert row["case"] == "training" and row["samples"] == 4
    assert row["compilations_later"] == 0 and row["gflop_per_image"] > 0


def test_a_clip_of_unknown_shape(config):
    other = replace(config, clip=replace(config.clip, weights="someone/clip"))
    with pytest.raises(UserError, match="the shape of this CLIP is not known"):
        RandomZeroShot(other, "random")


def select(what="inference", sweep=None):
    available = PLAIN_CASES | dict(ZeroShot.benchmark_cases)
    return Selection((what,), (), (8,), sweep, available, 8, "dapo.dtype")


def test_cases_of_a_plan():
    assert [case.name for case in plan(select())] == ["inference", "inference_device", "states"]
    assert [case.name for case in plan(select("training"))] == ["training"]
    points = {case.point for case in plan(select(sweep="dtype"))}
    assert points == {"--config.dapo.dtype=float32", "--config.dapo.dtype=bfloat16"}
    with pytest.raises(UserError, match="startup: it can be metrics, inference, training"):
        select("startup")
    with pytest.raises(UserError, match="no class bank"):
        select(sweep="classes")
