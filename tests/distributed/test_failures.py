"""A process that fails ends the others, with a message, within the stated time."""

import signal
import time

import pytest

from tests.distributed.processes import ROOT, finish, start

WORKER = str(ROOT / "tests" / "distributed" / "dying_worker.py")
HEARTBEAT = 4
# Beside the heartbeat: two seconds of last words, and a busy machine.
MARGIN = 25


def outcome(how, fails, processes=2):
    """Statuses, outputs, and the seconds from the failure to the end of all."""
    arguments = [WORKER, f"--how={how}", f"--fails={fails}", f"--heartbeat_timeout={HEARTBEAT}"]
    started = start(arguments, processes)
    lines = []
    for line in started[fails].stdout:
        lines.append(line)
        if line == "met\n":
            break
    began = time.monotonic()
    statuses, outputs = finish(started, 100)
    outputs[fails] = "".join(lines) + outputs[fails]
    return statuses, outputs, time.monotonic() - began


def test_a_killed_process_ends_the_others():
    statuses, outputs, seconds = outcome("killed", fails=1)
    assert statuses[1] == -signal.SIGKILL and statuses[0] not in (0, 2)
    assert "another task died" in outputs[0] or "another process died first" in outputs[0]
    assert seconds < HEARTBEAT + MARGIN


def test_the_coordinator_can_die_too():
    statuses, outputs, seconds = outcome("killed", fails=0)
    assert statuses[0] == -signal.SIGKILL and statuses[1] not in (0, 2)
    assert "another task died" in outputs[1] or "another process died first" in outputs[1]
    assert seconds < HEARTBEAT + MARGIN


@pytest.mark.parametrize(
    ("how", "status", "message"),
    [
        ("mistaken", 2, "error: process 1 of 2: photo.png is not an image; remove it"),
        ("broken", 1, "RuntimeError: a bug"),
    ],
)
def test_one_that_fails_does_not_wait_for_the_others(how, status, message):
    statuses, outputs, seconds = outcome(how, fails=1)
    assert statuses[1] == status and message in outputs[1]
    assert statuses[0] not in (0, 2)
    assert seconds < HEARTBEAT + MARGIN
