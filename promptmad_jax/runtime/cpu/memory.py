"""Host memory that programs on a CPU free: kept for the next call, or handed back to the system.

XLA's CPU backend allocates a program's intermediate arrays at each call, as one block. glibc hands
every block above 32 MiB back, and the system maps and zeroes it page by page for the next call:
300,000 page faults per training step at 224 px, a tenth of its time.
"""

import ctypes
import os
import time
from typing import Any

from promptmad_jax.runtime.cpu.processor import computes_alone

# Calls of a program after which its block ends the arena; two were enough in most runs.
FIRST_CALLS = 3

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGEST_INT = 2**31 - 1
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_ARENA_MAX")
_COMPILED = "/jax/core/compile/backend_compile_duration"
_LONG_COMPILATION_S = 5.0
# XLA frees intermediate arrays some milliseconds after it returns the results.
_FREED_S = 0.1
_EVERYTHING = 2**62

_keeps = False


def keep_freed_memory() -> bool:
    """Has glibc keep freed memory in one arena, where JAX has no accelerator.

    Call it before JAX starts its threads. With an accelerator the host's threads decode images and
    are better off with arenas of their own.

    Returns:
        False without glibc, or where the environment configures malloc.
    """
    global _keeps
    configured = any(name in os.environ for name in _VARIABLES)
    if configured or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    if not (_has_glibc() and computes_alone()):
        return False
    settings = {
        _ARENA_MAX: 1,
        _MMAP_THRESHOLD: _LARGEST_INT,
        _TRIM_THRESHOLD: _LARGEST_INT,
    }
    mallopt = ctypes.CDLL(None).mallopt
    _keeps = all(mallopt(setting, value) for setting, value in settings.items())
    return _keeps


def compute_in_this_thread() -> None:
    """Has JAX compute on a single CPU device in the calling thread.

    Call it before JAX's first use of a device. A thread of JAX frees a program's intermediate
    arrays only after it has returned the results, on a busy machine later than the next call
    allocates its own: the process then holds both. The calling thread has freed them when the call
    returns.
    """
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)


def hand_back_after_compilations() -> None:
    """Hands memory back after long compilations, if freed memory is kept: some 400 MiB."""
    from jax import monitoring

    if _keeps:
        monitoring.register_event_duration_secs_listener(_hand_back)


def hand_back() -> None:
    """Hands free memory back, if freed memory is kept."""
    if _keeps:
        _trim(keep_at_end=0)


def finish_call(results: Any, count: int) -> None:
    """Waits for the results of a program that runs many times, so that one call's block is free
    before the next call allocates its own. Does nothing on an accelerator, which queues calls.

    After the first calls, free memory is handed back. Small arrays that the first one leaves behind
    lie around its block, so that glibc, which needs room to align it, does not find the same place
    for the second. Memory at the arena's end is kept: there the block of every later call lies.

    Args:
        count: calls so far, this one included.
    """
    import jax

    if jax.default_backend() != "cpu":
        return
    jax.block_until_ready(results)
    if _keeps and count <= FIRST_CALLS:
        time.sleep(_FREED_S)
        _trim(keep_at_end=_EVERYTHING)


def _hand_back(event: str, seconds: float, **details: object) -> None:
    del details
    if event == _COMPILED and seconds > _LONG_COMPILATION_S:
        hand_back()


def _trim(keep_at_end: int) -> None:
    """Hands free memory back, but for this number of bytes at the arena's end."""
    ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(keep_at_end))


def _has_glibc() -> bool:
    name = "CS_GNU_LIBC_VERSION"
    return name in getattr(os, "confstr_names", ()) and bool(os.confstr(name))
