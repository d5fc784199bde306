"""A loop that is killed inside saves, or told to stop, ends as one that ran through.

The commands themselves, at random moments and with several processes: kill_many.py.
"""

import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.compiling import xla_environment
from tests.faults import loop_worker

WORKER = pathlib.Path(__file__).with_name("loop_worker.py")
ROOT = WORKER.parents[2]
REQUEUE = 75


def start(directory, *place, devices=1):
    own = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(WORKER), str(directory), *map(str, place)],
        env=os.environ | xla_environment(devices) | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(directory):
    """Two processes of two devices."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    return [start(directory, address, 2, index, devices=2) for index in range(2)]


def steps_of(process):
    """Yields each step as it is announced."""
    for line in process.stdout:
        if line.startswith("step") and "/" not in line:
            yield int(line.split()[1])


def saving(directory):
    return any((directory / "checkpoints").glob("*.orbax-checkpoint-tmp"))


def last_state(process):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output.split()[-1]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return loop_worker.digest(loop_worker.train(tmp_path_factory.mktemp("undisturbed")))


def test_killed_twice_it_ends_the_same(tmp_path, undisturbed):
    rng = random.Random(0)
    inside = 0
    for _ in range(2):
        process = start(tmp_path)
        steps = steps_of(process)
        first = next(steps)
        for step in steps:
            if step >= first + 5 + rng.randrange(5):
                break
        # Inside a save, where one comes in time.
        deadline = time.monotonic() + 0.5
        while not saving(tmp_path) and time.monotonic() < deadline:
            pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
        inside += saving(tmp_path)
    assert inside
    assert last_state(start(tmp_path)) == undisturbed
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"20", "40", "58", "60"}


def test_two_processes_stop_after_the_same_step_and_one_goes_on(tmp_path, undisturbed):
    processes = start_two(tmp_path)
    try:
        announced = steps_of(processes[1])
        seen = next(step for step in announced if step >= 3)
        processes[1].send_signal(signal.SIGUSR1)
        # It may stop after the very step that it was seen to announce.
        last = [max(steps_of(processes[0])), max(announced, default=seen)]
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [REQUEUE] * 2, errors
    assert last[0] == last[1] < 60
    alone = start(tmp_path)
    assert next(steps_of(alone)) == last[0] + 1
    assert last_state(alone) == undisturbed
