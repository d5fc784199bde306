"""What a run measures of itself; the clock is set by the tests."""

import math

import jax.numpy as jnp
import pytest

from promptmad_jax.runtime.processes import ALONE
from promptmad_jax.training import monitor as module
from promptmad_jax.training.monitor import Monitor
from tests.evaluation.threads import run_processes


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)

    def pass_on(self, seconds, result=None):
        self.now += seconds
        return result


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def step(monitor, clock, loss, waits=0.1, seconds=0.4):
    assert monitor.wait_for(lambda: clock.pass_on(waits, "batch")) == "batch"
    clock.pass_on(seconds)
    monitor.add({"loss": jnp.float32(loss), "grad_norm": jnp.float32(2 * loss)})


def test_a_row_has_means_and_speeds(clock):
    monitor = Monitor(8, 10, ALONE)
    for loss in (1.0, 2.0, 3.0, 6.0):
        step(monitor, clock, loss)
    row = monitor.row(14)
    assert {name: row[name] for name in ("loss", "grad_norm", "nonfinite_steps")} == {
        "loss": 3.0,
        "grad_norm": 6.0,
        "nonfinite_steps": 0.0,
    }
    assert row["step_s"] == pytest.approx(0.5) and row["images_per_s"] == pytest.approx(16)
    assert row["data_wait_s"] == pytest.approx(0.1)
    assert monitor.hosts == {} and not monitor.problem


def test_what_is_no_step_is_not_counted(clock):
    monitor = Monitor(8, 0, ALONE)
    step(monitor, clock, 1.0)
    monitor.row(1)
    clock.pass_on(1000)
    monitor.restart(1)
    step(monitor, clock, 1.0)
    assert monitor.row(2)["step_s"] == pytest.approx(0.5)
    assert "2 steps in 0:00:01" in monitor.summary() and "of 0:16:41" in monitor.summary()


def test_steps_that_are_not_finite_are_counted_and_then_end_the_run(clock):
    monitor = Monitor(8, 4, ALONE)
    for loss in (1.0, math.nan, math.inf, 1.0):
        step(monitor, clock, loss)
    row = monitor.row(8)
    assert row["nonfinite_steps"] == 2 and math.isnan(row["loss"])
    assert "grad_norm, loss is not finite at step 6" in monitor.problem


def test_summary_in_words(clock, monkeypatch):
    monkeypatch.setattr(module.jax, "local_devices", lambda: [Device(3), Device(5)])
    monitor = Monitor(8, 0, ALONE)
    assert monitor.summary() == ""
    step(monitor, clock, 1.0, seconds=60)
    assert monitor.row(1)["device_memory_peak_gib"] == 5
    for i in range(2, 5):
        step(monitor, clock, 1.0)
        assert monitor.row(i)["device_memory_gib"] == 2.5
    lines = monitor.summary().splitlines()
    assert "4 steps in 0:01:02" in lines[0]
    assert "step 0.5 s, 16.0 images/s" in lines[1] and "0.6%" in lines[1]
    assert "gradient norm 2" in lines[2] and "0 steps not finite" in lines[2]
    assert "fullest device 5.00 GiB" in lines[3]


class Device:
    def __init__(self, gib):
        self.bytes = gib * 2**30

    def memory_stats(self):
        return {"bytes_in_use": self.bytes // 2, "peak_bytes_in_use": self.bytes}


def test_each_process_gives_a_sign_of_life(monkeypatch):
    def work(run):
        monitor = Monitor(8, 0, run)
        monitor.wait_for(lambda: module.time.sleep(0.02 * run.index))
        monitor.add({"loss": jnp.float32(1)})
        return monitor.row(1), monitor.hosts

    (one, hosts), (other, same) = run_processes(2, work)
    assert hosts == same
    waits = [hosts["data_wait_s/0"], hosts["data_wait_s/1"]]
    assert waits[0] < 0.02 <= waits[1]
    assert one["data_wait_s"] == other["data_wait_s"] == waits[1]
    assert all(hosts[f"time/{i}"] > 1e9 and hosts[f"host_memory_gib/{i}"] > 0.01 for i in range(2))
