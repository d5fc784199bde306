"""Runs the commands as a user would, in processes of their own."""

import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from tests.compiling import xla_environment

SERVER = pathlib.Path(__file__).with_name("command_server.py")


def command(module, *args):
    return [sys.executable, "-m", f"promptmad_jax.{module}", *args]


def run(module, *args, status=0):
    """Runs a command on one CPU device and returns what it printed.

    The process is forked from one that has made the imports, which take longer than most commands.
    """
    with tempfile.NamedTemporaryFile() as output:
        request = {
            "module": f"promptmad_jax.{module}",
            "arguments": args,
            "output": output.name,
            "cwd": os.getcwd(),
            "environ": environment(),
        }
        server = _server()
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        found, text = server.stdout.readline(), output.read().decode()
    assert found == f"{status}\n", text
    return text


@functools.cache
def _server():
    return subprocess.Popen(
        [sys.executable, str(SERVER)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def environment():
    own = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": compiled_programs().name}
    return os.environ | xla_environment(1) | own


@functools.cache
def compiled_programs():
    """The folder in which commands keep what they compile; it goes when the tests end."""
    return tempfile.TemporaryDirectory(prefix="promptmad_jax-tests-")


def wait_for(process, condition):
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
