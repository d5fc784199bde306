"""How many CPU cores this process may use."""

import os


def core_count() -> int:
    """Those that the system lets it run on, where it says so; else all of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
