"""The clock, the table, and the memory of processes."""

import subprocess
import sys

import numpy as np
import pytest

from promptmad_jax.benchmarking import timing
from promptmad_jax.benchmarking.machine import describe_device, peak_rss_mib
from promptmad_jax.benchmarking.rows import rounded, timed_row
from promptmad_jax.benchmarking.table import print_table
from promptmad_jax.benchmarking.timing import Budget, time_calls


def test_median_quartiles_and_rate():
    row = timed_row("case", 8, np.array([4.0, 1.0, 2.0, 3.0, 5.0]))
    assert row == {
        "case": "case",
        "batch_size": 8,
        "median_s": 3.0,
        "lower_quartile_s": 2.0,
        "upper_quartile_s": 4.0,
        "samples": 5,
        "images_per_s": 8 / 3,
    }
    assert timed_row("case", None, np.ones(1))["images_per_s"] is None
    assert timed_row("case", 8, -np.ones(1))["images_per_s"] is None
    assert rounded({"a": 1 / 3, "b": "x", "c": None}) == {"a": 0.333333, "b": "x", "c": None}


class Clock:
    """A clock that calls move on."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def perf_counter(self):
        return self.now

    def call(self, name, seconds):
        self.calls.append(name)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_short_calls_are_repeated_within_a_sample(clock):
    found = time_calls({"a": lambda: clock.call("a", 0.25)}, Budget(5, sample_s=1.0))
    assert found["a"].tolist() == [0.25] * 5
    assert len(clock.calls) == 1 + 5 * 4


def test_calls_take_turns_and_their_differences_are_of_one_round(clock):
    calls = {"a": lambda: clock.call("a", 1.0), "b": lambda: clock.call("b", 3.0)}
    seconds = time_calls(calls, Budget(4, sample_s=1.0))
    assert clock.calls == list("ab" * 5)
    assert (seconds["b"] - seconds["a"]).tolist() == [2.0] * 4


def test_a_slow_case_ends_after_three_samples(clock):
    budget = Budget(50, sample_s=0.0, limit_s=2.0)
    found = time_calls({"a": lambda: clock.call("a", 1.0)}, budget)
    assert len(found["a"]) == 3


def test_memory_is_that_of_the_process_alone():
    """A process that is started does not inherit its parent's peak."""
    ballast = bytearray(200 * 2**20)
    code = "from promptmad_jax.benchmarking.machine import peak_rss_mib as p; print(p())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 20 < float(done.stdout) < peak_rss_mib() - len(ballast) / 2**20 / 2
    assert peak_rss_mib(2**30) is None


def test_device_is_named():
    assert "8 devices" in describe_device() and "cores" in describe_device()


def test_table_leaves_out_what_no_row_has(capsys):
    row = timed_row("inference", 8, np.array([0.5])) | {"device": "a CPU", "share_of_peak": 0.25}
    print_table([row, row | {"case": "stages"}])
    text = capsys.readouterr().err
    assert all(word in text for word in ("a CPU", "inference", "stages", "16", "25%"))
    assert "dtype" not in text
