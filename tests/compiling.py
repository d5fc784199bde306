"""Compilation in tests: quickly, or as users do where JAX_DISABLE_MOST_OPTIMIZATIONS is 0."""

import os
from importlib.metadata import version

_SWITCH = "JAX_DISABLE_MOST_OPTIMIZATIONS"
_QUICK = "--xla_cpu_use_fusion_emitters=false"


def xla_environment(devices):
    """Variables for so many CPU devices; XLA reads them once, when jax first looks for devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    if os.environ.get(_SWITCH, "1") == "0":
        return {"XLA_FLAGS": flags}
    # Compiling is most of the suite's time, and a third of that is the fusion emitters'. jaxlib
    # lost the flag during 0.11, and XLA ends the process at a flag that it does not know.
    if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
        flags = f"{flags} {_QUICK}"
    return {"XLA_FLAGS": flags, _SWITCH: "1"}
