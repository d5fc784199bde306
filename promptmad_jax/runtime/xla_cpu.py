"""XLA's flags for the processor at hand, where the CPU alone computes."""

import os
from importlib.metadata import version

from promptmad_jax.runtime import processor

# XLA ends the process at a flag that it does not know, and flags come and go between minor
# versions: so only up to the newest that these were tried with.
_NEWEST = (0, 12)
# 0.10's oneDNN ends the process at a product of a square, which squeeze and excitation has.
_OLDEST_WITH_ONEDNN = (0, 12)

_WIDE_VECTORS = ("--xla_cpu_prefer_vector_width=512",)
# Products by fusions, convolutions by custom calls; sums stay with YNNPACK, without which XLA makes
# them as windows of windows.
_ONEDNN = (
    "--xla_cpu_use_onednn=true",
    "--xla_cpu_experimental_onednn_fusion_type=DOT",
    "--xla_cpu_experimental_onednn_custom_call=true",
    "--xla_cpu_experimental_ynn_fusion_type=REDUCE",
)


def tune_xla() -> tuple[str, ...]:
    """Adds to `XLA_FLAGS` what makes XLA's CPU backend faster on this processor, where the CPU
    alone computes: to be called before JAX is imported.

    Vectors of 512 bits, on AMD's processors with AVX-512 and on Intel's since Sapphire Rapids: XLA
    stays at 256 bits everywhere, since older processors slow down at 512. Products and convolutions
    by oneDNN on the same ones of Intel: YNNPACK, which XLA takes, reaches half of its speed there
    at the backbone's small ones.

    Returns:
        The flags that were added: none of a group of which `XLA_FLAGS` names one already, and none
        at all where it names a file.
    """
    given = os.environ.get("XLA_FLAGS", "").strip()
    if (given and not given.startswith("--")) or not processor.computes_alone():
        return ()
    added = tuple(flag for group in _groups() if not _named(group, given) for flag in group)
    if added:
        os.environ["XLA_FLAGS"] = " ".join([*given.split(), *added])
    return added


def _groups() -> list[tuple[str, ...]]:
    told = processor.description()
    vendor, features = told.get("vendor_id"), told.get("flags", "").split()
    zen4 = vendor == "AuthenticAMD" and "avx512f" in features
    sapphire_rapids = vendor == "GenuineIntel" and "avx512_fp16" in features
    jaxlib = tuple(map(int, version("jaxlib").split(".")[:2]))
    if jaxlib > _NEWEST or not (zen4 or sapphire_rapids):
        return []
    if sapphire_rapids and jaxlib >= _OLDEST_WITH_ONEDNN:
        return [_WIDE_VECTORS, _ONEDNN]
    return [_WIDE_VECTORS]


def _named(group: tuple[str, ...], given: str) -> bool:
    return any(flag.partition("=")[0] in given for flag in group)
