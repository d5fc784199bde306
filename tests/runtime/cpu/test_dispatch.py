"""A program that is called again and again does not hold its intermediate arrays twice."""

import ctypes
import os
import subprocess
import sys

import pytest

from promptmad_jax.commands import train as run
from promptmad_jax.config import Config
from promptmad_jax.runtime.cpu import dispatch as calls

tells = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="glibc alone, from 2.33, tells what is in use",
)

# Calls of a program with 30 MB of intermediate arrays, each followed at once by a look at what the
# process has in use: the most that was still there.
LOOK = """
import ctypes
from promptmad_jax.runtime.cpu import dispatch as calls
from promptmad_jax.runtime.cpu import memory as heap
fields = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
class Allocated(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in fields]
mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Allocated
heap.keep_freed_memory()
calls.compute_in_this_thread()
import jax, time
from jax import numpy as jnp
@jax.jit
def program(x):
    parts = [jax.lax.optimization_barrier(jnp.sin(x + i)) for i in range(8)]
    return sum(a @ b for a, b in zip(parts, parts[::-1])).sum()
x = jnp.ones((1000, 1000))
jax.block_until_ready(program(x))
time.sleep(0.2)
before = mallinfo2().uordblks
most = 0
for _ in range(40):
    jax.block_until_ready(program(x))
    most = max(most, mallinfo2().uordblks - before)
print(most)
"""


@tells
def test_what_a_call_needed_is_freed_when_it_returns():
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    result = subprocess.run(
        [sys.executable, "-c", LOOK],
        env=clean | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(result.stdout) < 2**20


class Asked(Exception):
    pass


def test_training_asks_for_it_first_of_all(monkeypatch, tmp_path):
    def ask():
        raise Asked

    monkeypatch.setattr(run, "compute_in_this_thread", ask)
    with pytest.raises(Asked):
        run.run_training(Config(), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_memory_is_handed_back_after_the_first_calls(monkeypatch):
    handed_back = []
    monkeypatch.setattr(calls, "hand_back_unused", handed_back.append)
    program = calls.Calls()
    for number in range(5):
        program.wait()
        program.made(number)
    assert handed_back == [0, 1, 2]
