"""JAX's persistent compilation cache, in the user's cache folder."""

import os
from pathlib import Path

from promptmad_jax.runtime.cpu import processor


def keep_compiled_programs() -> None:
    """Turns the cache on by environment variables, before JAX is imported; keeps the user's.

    Each kind of CPU has a folder of its own: XLA may compile for instructions that another CPU
    lacks, and several may share a home directory. Short compilations are kept too, because a
    command makes hundreds of them.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_default_directory()))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _default_directory() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(cache) / "promptmad_jax" / "xla" / processor.kind()
