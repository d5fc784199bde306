"""Wide vectors where they cost nothing, and nowhere that XLA might not know the flag."""

import os
import subprocess
import sys

import pytest

from promptmad_jax.runtime.cpu import processor, vector_width

WIDTH = "--xla_cpu_prefer_vector_width=512"
DEVICES = "--xla_force_host_platform_device_count=8"


@pytest.mark.parametrize(
    ("flags", "features", "platforms", "jaxlib", "expected"),
    [
        ("", "avx512f avx512_bf16", "cpu", "0.12.0.1", WIDTH),
        (DEVICES, "avx512f avx512_bf16", "cpu", "0.10.2", f"{DEVICES} {WIDTH}"),
        ("", "avx512f", "cpu", "0.12.0", ""),
        ("", "avx512f avx512_bf16", "cuda,cpu", "0.12.0", ""),
        ("", "avx512f avx512_bf16", "cpu", "0.13.0", ""),
        ("flags.txt", "avx512f avx512_bf16", "cpu", "0.12.0", "flags.txt"),
        (WIDTH.replace("512", "256"), "avx512_bf16", "cpu", "0.12.0", WIDTH.replace("512", "256")),
    ],
)
def test_flags(monkeypatch, flags, features, platforms, jaxlib, expected):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(processor, "description", lambda: {"flags": features})
    monkeypatch.setattr(vector_width, "version", lambda package: jaxlib)
    vector_width.use_wide_vectors()
    assert os.environ["XLA_FLAGS"] == expected


PROGRAM = """
from promptmad_jax.runtime.cpu import processor, vector_width
processor.description = lambda: {"flags": "avx512_bf16"}
vector_width.use_wide_vectors()
import jax
print(jax.jit(lambda x: x + 1)(1.0))
"""


def test_xla_knows_the_flag():
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["2.0"]
