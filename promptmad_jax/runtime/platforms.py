"""Names the platform that JAX was told to use and that this machine lacks."""

import os
import traceback

_MODULE = os.path.join("jax", "_src", "xla_bridge.py")


def unavailable_platform(error: BaseException) -> str | None:
    """Describes why JAX found no device; None for an error of another origin."""
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        if any(f.filename.endswith(_MODULE) and f.name == "backends" for f in frames):
            reason = str(error).partition(" (set JAX_PLATFORMS")[0] or "no such device was found"
            wanted = os.environ.get("JAX_PLATFORMS", "")
            return (
                f"JAX_PLATFORMS={wanted} cannot be used on this machine ({reason}): set "
                "JAX_PLATFORMS=cpu, or install the platform's package, jax[cuda13] or jax[tpu]"
            )
        error = error.__cause__ or error.__context__
    return None
