"""Freed memory is kept by the process, where only the CPU computes."""

import os
import subprocess
import sys

import pytest

from promptmad_jax.runtime.cpu import memory as heap

glibc = pytest.mark.skipif(not heap._has_glibc(), reason="glibc alone has these settings")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

# A block above the 32 MiB that glibc hands back at most, allocated, touched and freed in a thread
# three times.
FAULTS = """
import resource, sys, threading
import numpy as np
from promptmad_jax.runtime.cpu.memory import keep_freed_memory
kept = keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(12_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
counts = []
thread = threading.Thread(target=lambda: counts.extend(faults() for _ in range(3)))
thread.start(); thread.join()
print(kept, counts[-1])
"""


def last_faults(**environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    result = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env=clean | {"JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, count = result.stdout.split()
    return kept == "True", int(count)


@glibc
def test_what_is_freed_is_used_again():
    kept, count = last_faults()
    assert kept and count < 100
    kept, count = last_faults(JAX_PLATFORMS="cuda,cpu")
    assert not kept and count > 100


@glibc
@pytest.mark.parametrize(
    "setting", [("MALLOC_ARENA_MAX", "4"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=4")]
)
def test_the_users_own_settings_stay(setting):
    kept, _ = last_faults(**dict([setting]))
    assert not kept


def test_elsewhere_than_glibc_nothing_is_done(monkeypatch):
    monkeypatch.setattr(heap, "_has_glibc", lambda: False)
    assert not heap.keep_freed_memory()


# Blocks freed below one that stays, so that the heap cannot shrink by itself.
FREED = """
import jax
from promptmad_jax.runtime.cpu import memory as heap
resident = lambda: int(open("/proc/self/statm").read().split()[1])
heap.keep_freed_memory()
import numpy as np
blocks = [np.ones(1_000) for _ in range(20_000)]
last = np.ones(1_000)
del blocks
"""
FREED_PAGES = 20_000 * 8_000 // os.sysconf("SC_PAGE_SIZE")

COMPILATION = """
heap.hand_back_after_compilations()
before = resident()
jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", 1.0)
short = resident()
jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", 10.0)
print(before - short, before - resident())
"""


CALL = """
results = jax.numpy.ones(3)
end = np.ones(25_000_000)  # too large for the place of the blocks
del end
before = resident()
heap.hand_back_unused(results)
print(before - resident())
"""


def pages_handed_back(script):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    result = subprocess.run(
        [sys.executable, "-c", FREED + script],
        env=clean | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(pages) for pages in result.stdout.split()]


@glibc
@linux
def test_what_a_long_compilation_frees_is_handed_back():
    after_short, after_long = pages_handed_back(COMPILATION)
    assert after_short < 0.1 * FREED_PAGES and after_long > 0.8 * FREED_PAGES


@glibc
@linux
def test_what_a_call_frees_is_handed_back():
    # Without the 200 MB that end the heap: the next call uses them.
    (pages,) = pages_handed_back(CALL)
    assert 0.8 * FREED_PAGES < pages < 1.1 * FREED_PAGES


def test_where_memory_is_not_kept_nothing_is_handed_back(monkeypatch):
    handed_back = []
    monkeypatch.setattr(heap, "_trim", lambda keep_at_end: handed_back.append(keep_at_end))
    monkeypatch.setattr(heap, "_keeps", True)
    heap.hand_back_unused(None)
    monkeypatch.setattr(heap, "_keeps", False)
    heap.hand_back_unused(None)
    assert handed_back == [heap._EVERYTHING]
