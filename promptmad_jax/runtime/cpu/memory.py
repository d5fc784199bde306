"""Host memory that one program has freed, kept for the next."""

import ctypes
import os
import time
from typing import Any

from promptmad_jax.runtime.cpu.processor import computes_alone

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_MOST = 2**31 - 1
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_ARENA_MAX")
_COMPILED = "/jax/core/compile/backend_compile_duration"
_LONG_COMPILATION_S = 5.0
# XLA frees a program's intermediate arrays some milliseconds after its results are there.
_FREED_S = 0.1
_WHOLE_END = 2**62  # bytes, more than there are

_keeps = False


def keep_freed_memory() -> bool:
    """Has glibc keep what is freed, in one heap, where the CPU alone computes: to be called before
    JAX starts its threads.

    XLA's CPU backend allocates a program's intermediate arrays anew at each call. glibc hands
    everything over 32 MiB back, and the system then maps and zeroes it page by page for the next
    call: 300,000 page faults a training step at 224 px, a tenth of its time. With an accelerator
    the host's threads decode images, and had better keep heaps of their own.

    Returns:
        Whether it was done: not without glibc, not where the environment has settings for malloc.
    """
    global _keeps
    set_already = any(name in os.environ for name in _SETTINGS)
    if set_already or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    if not (_has_glibc() and computes_alone()):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    _keeps = all(
        mallopt(setting, value)
        for setting, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _MOST), (_TRIM_THRESHOLD, _MOST))
    )
    return _keeps


def hand_back_after_compilations() -> None:
    """Has what long compilations free handed back, where `keep_freed_memory` was called: it is not
    needed again, and half a minute of XLA leaves some 400 MiB."""
    from jax import monitoring

    if _keeps:
        monitoring.register_event_duration_secs_listener(_hand_back)


def hand_back_unused(results: Any) -> None:
    """Waits for the results of a program that is called again and again, and has what is free but
    does not end the heap handed back, where `keep_freed_memory` was called. For the first calls
    (`runtime.calls`).

    A program's intermediate arrays are one block. Small ones that the first call leaves behind lie
    around it, so that glibc, which looks for a block with room to align it, does not find the
    second call's place where the first one's was: that stays with the process for nothing. Once
    nothing else comes to stay, the block ends the heap, and every call uses it.
    """
    if _keeps:
        import jax

        jax.block_until_ready(results)
        time.sleep(_FREED_S)
        _trim(keep=_WHOLE_END)


def _hand_back(event: str, seconds: float, **details: object) -> None:
    del details
    if event == _COMPILED and seconds > _LONG_COMPILATION_S:
        _trim(keep=0)


def _trim(keep: int) -> None:
    """Hands back what is free; of the heap's end, what exceeds so many bytes."""
    ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(keep))


def _has_glibc() -> bool:
    name = "CS_GNU_LIBC_VERSION"
    return name in getattr(os, "confstr_names", ()) and bool(os.confstr(name))
