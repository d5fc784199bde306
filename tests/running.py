"""Runs the commands as a user would, in processes of their own."""

import os
import subprocess
import sys
import tempfile
import time

from tests.compiling import xla_environment


def command(module, *args):
    return [sys.executable, "-m", f"promptmad_jax.{module}", *args]


def run(module, *args, status=0):
    """Runs a command on one CPU device and returns what it printed."""
    done = subprocess.run(command(module, *args), capture_output=True, text=True, env=environment())
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def environment():
    cache = os.path.join(tempfile.gettempdir(), f"promptmad_jax-tests-{os.getuid()}-{os.getpid()}")
    own = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": cache}
    return os.environ | xla_environment(1) | own


def wait_for(process, condition):
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
