"""Real processes that talk over loopback."""

import json
import pathlib

import pytest

from promptmad_jax.runtime.processes import ALONE
from tests.distributed.processes import run
from tests.evaluation.shared_work import evaluate, in_turn

WORKER = pathlib.Path(__file__).with_name("process_worker.py")


@pytest.mark.parametrize("count", [2, 4])
def test_processes_give_the_bits_of_one(count):
    outputs = run([str(WORKER)], count, devices=2)
    lines = [[line for line in text.splitlines() if line.startswith("{")] for text in outputs]
    every = [json.loads(line) for (line,) in lines]
    expected = json.loads(json.dumps(evaluate(ALONE, in_turn)))
    wrapped = (count * 2**62 + 2**63) % 2**64 - 2**63
    for index, found in enumerate(every):
        assert found["process"] == [index, count]
        assert found["sum"][0] == [wrapped, -3 * count, count * (2**32 - 1)]
        assert found["sum"][1] == [sum(range(count)), count * 2**31, 0]
        assert found["parts"] == [[[i + 0.1] * 3] * i for i in range(count)]
        assert found["objects"] == ["ä" * i for i in range(count)]
        assert found["result"] == expected
