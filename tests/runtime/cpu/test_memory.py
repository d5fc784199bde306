"""Freed memory is kept by the process where only the CPU computes, and held once."""

import ctypes
import os
import subprocess
import sys

import pytest

from promptmad_jax.commands import train
from promptmad_jax.config import Config
from promptmad_jax.runtime.cpu import memory

glibc = pytest.mark.skipif(not memory._has_glibc(), reason="glibc alone has these settings")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
glibc_2_33 = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc tells what is in use from 2.33 on"
)


def run(script, **environment):
    """The words that a script prints, without settings for malloc unless given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    result = subprocess.run(
        [sys.executable, "-c", f"from promptmad_jax.runtime.cpu import memory\n{script}"],
        env=clean | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.split()


# A block above the 32 MiB that glibc hands back at most, allocated, touched and freed in a thread
# three times: page faults of the last time.
FAULTS = """
import resource, threading
import numpy as np
kept = memory.keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(12_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
counts = []
thread = threading.Thread(target=lambda: counts.extend(faults() for _ in range(3)))
thread.start(); thread.join()
print(kept, counts[-1])
"""


@glibc
@pytest.mark.parametrize(
    ("environment", "kept"),
    [
        ({}, True),
        ({"JAX_PLATFORMS": "cuda,cpu"}, False),
        ({"MALLOC_ARENA_MAX": "4"}, False),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"}, False),
    ],
)
def test_freed_memory_is_used_again_unless_the_user_decides(environment, kept):
    result, faults = run(FAULTS, **environment)
    assert (result == "True") == kept == (int(faults) < 100)


def test_elsewhere_than_glibc_nothing_is_done(monkeypatch):
    monkeypatch.setattr(memory, "_has_glibc", lambda: False)
    assert not memory.keep_freed_memory()


# Blocks freed below one that stays, so that the heap cannot shrink by itself.
FREED = """
import jax
resident = lambda: int(open("/proc/self/statm").read().split()[1])
memory.keep_freed_memory()
import numpy as np
blocks = [np.ones(1_000) for _ in range(20_000)]
last = np.ones(1_000)
del blocks
"""
FREED_PAGES = 20_000 * 8_000 // os.sysconf("SC_PAGE_SIZE")

COMPILATION = """
memory.hand_back_after_compilations()
before = resident()
jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", 1.0)
short = resident()
jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", 10.0)
print(before - short, before - resident())
"""

CALLS = """
results = jax.numpy.ones(3)
end = np.ones(25_000_000)  # too large for the place of the blocks
del end
before = resident()
memory.finish_call(results, memory.FIRST_CALLS + 1)
later = resident()
memory.finish_call(results, memory.FIRST_CALLS)
print(before - later, before - resident())
"""


@glibc
@linux
@pytest.mark.parametrize("script", [COMPILATION, CALLS])
def test_long_compilations_and_first_calls_hand_memory_back(script):
    # Of calls, without the 200 MB at the arena's end.
    no_pages, pages = map(int, run(FREED + script))
    assert no_pages < 0.1 * FREED_PAGES and pages > 0.8 * FREED_PAGES
    assert script is COMPILATION or pages < 1.1 * FREED_PAGES


# Calls of a program with 30 MB of intermediate arrays: the most in use right after one of them.
IN_USE = """
import ctypes
fields = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
class Allocated(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in fields]
mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Allocated
memory.keep_freed_memory()
memory.compute_in_this_thread()
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
def in_use():
    jax.block_until_ready(program(x))
    return mallinfo2().uordblks - before
print(max(in_use() for _ in range(40)))
"""


@glibc_2_33
def test_intermediate_arrays_are_free_when_a_call_returns():
    (most,) = run(IN_USE)
    assert int(most) < 2**20


def test_training_computes_in_its_thread_before_all_else(monkeypatch, tmp_path):
    class Asked(Exception):
        pass

    def ask():
        raise Asked

    monkeypatch.setattr(train, "compute_in_this_thread", ask)
    with pytest.raises(Asked):
        train.run_training(Config(), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
