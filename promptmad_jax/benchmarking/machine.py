"""Name of the device, and peak memory of processes and devices."""

import contextlib
import platform
import re
import resource
import sys
from pathlib import Path

import jax

from promptmad_jax.runtime.cpu.processor import core_count, description

_MIB = 2**20
_RU_MAXRSS_PER_MIB = _MIB if sys.platform == "darwin" else 1024


def describe_device() -> str:
    """Kind and number of JAX's devices; for a CPU its model and cores."""
    device, count = jax.devices()[0], jax.device_count()
    kind = device.device_kind
    if device.platform == "cpu":
        model = description().get("model name", platform.machine())
        kind = f"{model}, {core_count()} cores"
    return kind if count == 1 else f"{kind}, {count} devices"


def peak_rss_mib(process: int | None = None) -> float | None:
    """Peak host memory of a process, by default of this one.

    Returns None for another process that has ended or whose memory the system does not report.
    """
    # ru_maxrss would include what the parent held when it started this process.
    with contextlib.suppress(FileNotFoundError):
        status = Path(f"/proc/{process or 'self'}/status").read_text()
        if peak := re.search(r"VmHWM:\s*(\d+)", status):
            return int(peak[1]) / 1024
    if process is not None:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _RU_MAXRSS_PER_MIB


def peak_device_mib() -> float | None:
    """Peak memory of the fullest device; None if the platform does not report it."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [row["peak_bytes_in_use"] for row in stats if "peak_bytes_in_use" in row]
    return max(peaks) / _MIB if peaks else None
