"""Freed memory is kept by the process, where only the CPU computes."""

import os
import subprocess
import sys

import pytest

from promptmad_jax.runtime import heap

glibc = pytest.mark.skipif(not heap._has_glibc(), reason="glibc alone has these settings")

# A block above the 32 MiB that glibc hands back at most, allocated, touched and freed in a thread
# three times.
FAULTS = """
import resource, sys, threading
import numpy as np
from promptmad_jax.runtime.heap import keep_freed_memory
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


@pytest.mark.parametrize(
    ("platforms", "plugins", "alone"),
    [("cpu", ["cuda"], True), ("tpu", [], False), ("", [], True), ("", ["cuda"], False)],
)
def test_where_the_cpu_computes_alone(monkeypatch, platforms, plugins, alone):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(heap, "entry_points", lambda group: plugins)
    monkeypatch.setattr(heap, "find_spec", lambda name: None)
    assert heap._computes_on_cpu_alone() == alone


def test_elsewhere_than_glibc_nothing_is_done(monkeypatch):
    monkeypatch.setattr(heap, "_has_glibc", lambda: False)
    assert not heap.keep_freed_memory()
