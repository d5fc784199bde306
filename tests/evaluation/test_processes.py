"""Real processes that talk over loopback."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from promptmad_jax.runtime.processes import ALONE
from tests.compiling import xla_environment
from tests.evaluation.shared_work import evaluate, in_turn

ROOT = pathlib.Path(__file__).parents[2]
WORKER = pathlib.Path(__file__).with_name("process_worker.py")
SECONDS = 120


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_workers(count):
    """What each of `count` processes, with two devices each, printed."""
    own = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    environment = os.environ | xla_environment(2) | own
    address = f"127.0.0.1:{free_port()}"
    workers = [
        subprocess.Popen(
            [sys.executable, str(WORKER), address, str(count), str(index)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]
    try:
        outputs = [worker.communicate(timeout=SECONDS) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, (_, errors) in zip(workers, outputs, strict=True):
        assert worker.returncode == 0, errors
    return [json.loads(text.splitlines()[-1]) for text, _ in outputs]


@pytest.mark.parametrize("count", [2, 4])
def test_processes_give_the_bits_of_one(count):
    every = run_workers(count)
    expected = json.loads(json.dumps(evaluate(ALONE, in_turn)))
    wrapped = (count * 2**62 + 2**63) % 2**64 - 2**63
    for index, found in enumerate(every):
        assert found["process"] == [index, count]
        assert found["sum"][0] == [wrapped, -3 * count, count * (2**32 - 1)]
        assert found["sum"][1] == [sum(range(count)), count * 2**31, 0]
        assert found["parts"] == [[[i + 0.1] * 3] * i for i in range(count)]
        assert found["objects"] == ["ä" * i for i in range(count)]
        assert found["result"] == expected
