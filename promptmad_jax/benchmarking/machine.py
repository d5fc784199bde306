"""Which machine this is and how much memory a process and its device have needed."""

import platform
import resource
import sys
from pathlib import Path

import jax

from promptmad_jax.runtime.cpu.processor import core_count

_MIB = 2**20
_RU_MAXRSS_A_MIB = _MIB if sys.platform == "darwin" else 1024


def describe_device() -> str:
    """The device that JAX computes on, and how many there are; of a CPU its model and cores."""
    device, count = jax.devices()[0], jax.device_count()
    if device.platform == "cpu":
        kind = f"{_cpu_model()}, {core_count()} cores"
    else:
        kind = device.device_kind
    return kind if count == 1 else f"{kind}, {count} devices"


def peak_rss_mib(process: int | None = None) -> float | None:
    """The most host memory that a process has held at once.

    Args:
        process: its number; this one where nothing is given. None comes back for another that has
            ended, or where the system does not tell.
    """
    try:
        status = Path(f"/proc/{process or 'self'}/status").read_text()
    except FileNotFoundError:
        status = ""
    # ru_maxrss would count what the parent held when it started this process.
    peak = next((x for x in status.splitlines() if x.startswith("VmHWM")), None)
    if peak is not None:
        return int(peak.split()[1]) / 1024
    if process is not None:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _RU_MAXRSS_A_MIB


def peak_device_mib() -> float | None:
    """The most memory that any device has held at once; None where the platform does not tell."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [row["peak_bytes_in_use"] for row in stats if "peak_bytes_in_use" in row]
    return max(peaks) / _MIB if peaks else None


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
