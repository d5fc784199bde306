"""Ctrl-C at every moment, and two trainings in one folder in every order: minutes, on demand."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.full
@pytest.mark.parametrize("what", ["ctrl_c", "two"])
def test_a_run_that_is_stopped_or_started_twice_ends_as_an_undisturbed_one(tmp_path, what):
    script = Path(__file__).with_name("stop_many.py")
    arguments = [f"--what={what}", f"--workdir={tmp_path}"]
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
