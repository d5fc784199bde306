"""This machine's processor and its caches."""

import hashlib
import os
import platform
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

_INFO = Path("/proc/cpuinfo")
# NVIDIA's GPUs, also under WSL; TPUs of both kinds; AMD's GPUs.
_FOLDER = Path("/dev")
_DEVICES = ("nvidia[0-9]*", "dxg", "accel[0-9]*", "vfio/[0-9]*", "kfd")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def computes_alone() -> bool:
    """Returns True if JAX will find the CPU and no accelerator; needs no import of JAX."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms == "cpu"
    # A package alone computes nothing: without its device JAX falls back on the CPU.
    installed = bool(entry_points(group="jax_plugins")) or find_spec("libtpu") is not None
    return not installed or not any(path for name in _DEVICES for path in _FOLDER.glob(name))


@cache
def description() -> dict[str, str]:
    """The first core's entries of Linux's cpuinfo, such as `flags`; empty elsewhere."""
    if not _INFO.exists():
        return {}
    first = _INFO.read_text().partition("\n\n")[0]
    fields = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in fields}


def kind() -> str:
    """The architecture, with a digest of the CPU's instruction sets: of the machine's name where
    the system does not list them."""
    lists = description().get("flags") or description().get("Features") or platform.node()
    digest = hashlib.sha256(" ".join(sorted(lists.split())).encode()).hexdigest()[:12]
    return f"{platform.machine()}-{digest}"


@cache
def largest_cache() -> int:
    """Bytes of the largest cache that serves the first core, by Linux; 0 elsewhere."""
    sizes = (path.read_text().strip() for path in _CACHES.glob("index*/size"))
    return max((int(size.removesuffix("K")) * 1024 for size in sizes), default=0)


def core_count() -> int:
    """Cores that this process may run on, where the system tells; else all of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
