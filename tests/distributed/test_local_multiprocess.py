"""launch/local_multiprocess.sh, with a stand-in for the training."""

import os
import re
import signal
import subprocess
import time

import pytest

from promptmad_jax.runtime.interrupts import REQUEUE_STATUS
from tests.distributed.launching import LAUNCH, calls, launch

# A process: fails as `how` says for its index at the first attempt, and succeeds afterwards.
PROCESS = """
if [[ "$1" == -c ]]; then exec python3 "$@"; fi
for argument in "$@"; do
  case "$argument" in
    --process_id=*) index="${argument#*=}" ;;
    --num_processes=*) count="${argument#*=}" ;;
  esac
done
attempt="$(grep -c -- "--process_id=$index\\b" "$CALLS")"
echo "attempt $attempt of $index of $count with $JAX_NUM_CPU_DEVICES devices on $JAX_PLATFORMS"
[[ -z "${EVERY_TIME:-}" && "$attempt" -gt 1 ]] && exit 0
case "$index" in
  "${FAILS:-none}") exit "${STATUS:-1}" ;;
  "${HANGS:-none}") trap "echo told; exit 75" TERM; while true; do sleep 0.1; done ;;
esac
"""


def local(stand_in, *arguments, **environment):
    program = stand_in("training", PROCESS)
    environment |= {"PROMPTMAD_PYTHON": str(program), "JAX_PLATFORMS": "cpu"}
    return launch("local_multiprocess.sh", *arguments, **environment)


def test_local_processes_get_their_place_and_the_arguments(stand_in, tmp_path):
    done = local(stand_in, "3", "--devices_per_process=2", "--", "--config=a b.py", "--x")
    assert done.returncode == 0, done.stderr
    started = [call for call in calls(tmp_path) if "-m promptmad_jax.train" in call]
    assert len(started) == 3 and all("--config=a b.py --x" in call for call in started)
    (address,) = {re.search(r"--coordinator_address=(\S+)", call)[1] for call in started}
    assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
    assert {f"[{i}] attempt 1 of {i} of 3 with 2 devices on cpu" for i in range(3)} == set(
        done.stdout.splitlines()
    )


def test_local_all_start_again_when_one_fails(stand_in):
    done = local(stand_in, "2", "--grace=1", "--", FAILS="1", STATUS="134", HANGS="0")
    assert done.returncode == 0, done.stderr
    assert "process 1 ended with status 134" in done.stderr
    assert "stopping the others" in done.stderr and "process 0 ended with status 137" in done.stderr
    assert "restart 1 of 3" in done.stderr
    assert {f"attempt 2 of {i}" for i in range(2)} <= {
        line[4:].partition(" of 2")[0] for line in done.stdout.splitlines()
    }


def test_local_restarts_are_limited(stand_in, tmp_path):
    again = {"FAILS": "0", "STATUS": "7", "EVERY_TIME": "yes"}
    done = local(stand_in, "1", "--restarts=2", "--", **again)
    assert done.returncode == 7 and "giving up after 2 restarts" in done.stderr
    assert sum("--process_id=0" in call for call in calls(tmp_path)) == 3


def test_local_a_mistake_starts_nothing_again(stand_in, tmp_path):
    done = local(stand_in, "2", "--grace=0", "--", FAILS="1", STATUS="2", HANGS="0")
    assert done.returncode == 2 and "restart" not in done.stderr
    assert sum("--process_id=1" in call for call in calls(tmp_path)) == 1


def test_local_passes_a_signal_on_and_stays_down(stand_in, tmp_path):
    program = stand_in("training", PROCESS)
    environment = {"PROMPTMAD_PYTHON": str(program), "JAX_PLATFORMS": "cpu", "HANGS": "0"}
    process = subprocess.Popen(
        ["bash", str(LAUNCH / "local_multiprocess.sh"), "1", "--"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout.readline().startswith("[0] attempt 1")
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == REQUEUE_STATUS, output
    assert "told" in output and "restart" not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give the number of processes"),
        (("0",), "it must be a number"),
        (("2", "--config=x"), "arguments of the training go after --"),
        (("2", "--restarts=x"), "it must be a number"),
    ],
)
def test_local_mistakes(arguments, message):
    done = launch("local_multiprocess.sh", *arguments)
    assert done.returncode == 2 and message in done.stderr
