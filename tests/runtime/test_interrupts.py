"""A command that is interrupted, or whose output nobody reads, ends in one line or in none."""

import os
import pathlib
import shlex
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
COMMAND = """
import hashlib, sys, threading, time
from promptmad_jax.runtime import cli, interrupts

def main(argv):
    interrupts._NOTICE_SECONDS, interrupts._ECHO_SECONDS = 0.2, 0.0
    with interrupts.tidied_up():
        try:
            if argv[1] == "computes":  # Python's handlers do not run.
                threading.Timer(0.5, lambda: print("ready", flush=True)).start()
                hashlib.pbkdf2_hmac("sha256", b"", b"", 10**8)
            print("ready", flush=True)
            if argv[1] == "waits":
                time.sleep(60)
            for _ in range(100_000):
                print("line")
        finally:
            print("tidied", file=sys.stderr)

cli.run(main)
"""


def start(directory, what):
    (directory / "main.py").write_text(COMMAND)
    process = subprocess.Popen(
        [sys.executable, "main.py", what],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")]
)
def test_a_signal_is_one_line_after_tidying_up(tmp_path, number, name):
    process = start(tmp_path, "waits")
    process.send_signal(number)
    errors = process.communicate(timeout=30)[1]
    assert errors == f"tidied\ninterrupted by {name}; the same command starts again\n"
    assert process.returncode == 128 + number


def test_a_second_ctrl_c_ends_compiled_code_at_once(tmp_path):
    process = start(tmp_path, "computes")
    process.send_signal(signal.SIGINT)
    assert "Ctrl-C again ends at once" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=5)[1] == "ended at once by the second Ctrl-C\n"
    assert process.returncode == 130


@pytest.mark.parametrize("what", ["prints", "--help"])
def test_a_closed_pipe_says_nothing(tmp_path, what):
    if what == "--help":
        command = f"{shlex.quote(sys.executable)} -m promptmad_jax --help | true"
        done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
        assert done.stderr == ""
        return
    process = start(tmp_path, what)
    process.stdout.close()
    assert process.stderr.read() == "tidied\n" and process.wait(30) == 141
