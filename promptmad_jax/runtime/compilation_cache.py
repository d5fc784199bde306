"""Compiled programs, kept from one command to the next."""

import hashlib
import os
import platform
from pathlib import Path

from promptmad_jax.runtime.cpu import processor

_DIRECTORY = "JAX_COMPILATION_CACHE_DIR"
_LEAST_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def keep_compiled_programs() -> None:
    """Turns JAX's persistent compilation cache on, by its environment variables: to be called
    before JAX is imported. What the user has set stays.

    Programs lie in the user's cache, apart for every kind of CPU: what XLA compiles for a CPU may
    use instructions that another has not, and a home directory can be shared by several. Short
    compilations are kept too, for a command makes hundreds of them.
    """
    os.environ.setdefault(_DIRECTORY, str(_default_directory()))
    os.environ.setdefault(_LEAST_SECONDS, "0")


def _default_directory() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(cache) / "promptmad_jax" / "xla" / _cpu_kind()


def _cpu_kind() -> str:
    """The architecture, with a digest of the CPU's instruction sets where the system tells them."""
    told = processor.description()
    instructions = told.get("flags") or told.get("Features", "")
    digest = hashlib.sha256(" ".join(sorted(instructions.split())).encode()).hexdigest()[:12]
    return f"{platform.machine()}-{digest}"
