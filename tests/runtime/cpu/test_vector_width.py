"""Wide vectors where they cost nothing, and nowhere that XLA might not know the flag."""

import os
import subprocess
import sys

import pytest

from promptmad_jax.runtime.cpu import processor
from promptmad_jax.runtime.cpu import vector_width as vectors

WIDTH = "--xla_cpu_prefer_vector_width=512"
ZEN4 = {"vendor_id": "AuthenticAMD", "flags": "fpu avx2 avx512f"}
SAPPHIRE_RAPIDS = {"vendor_id": "GenuineIntel", "flags": "avx2 avx512f avx512_fp16"}


@pytest.fixture(autouse=True)
def zen4(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(processor, "description", lambda: ZEN4)
    monkeypatch.setattr(vectors, "version", lambda package: "0.12.0.1")


def test_added_to_what_is_there(monkeypatch):
    assert vectors.use_wide_vectors() and os.environ["XLA_FLAGS"] == WIDTH
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    assert vectors.use_wide_vectors()
    assert os.environ["XLA_FLAGS"] == f"--xla_force_host_platform_device_count=8 {WIDTH}"
    assert not vectors.use_wide_vectors()


def test_intel_since_sapphire_rapids(monkeypatch):
    monkeypatch.setattr(processor, "description", lambda: SAPPHIRE_RAPIDS)
    assert vectors.use_wide_vectors() and os.environ["XLA_FLAGS"] == WIDTH


@pytest.mark.parametrize("flags", ["--xla_cpu_prefer_vector_width=256", "flags.txt"])
def test_the_users_own_flags_stay(monkeypatch, flags):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert not vectors.use_wide_vectors() and os.environ["XLA_FLAGS"] == flags


@pytest.mark.parametrize(
    "told",
    [
        {"vendor_id": "GenuineIntel", "flags": "avx512f"},
        {"vendor_id": "AuthenticAMD", "flags": "avx2"},
        {},
    ],
)
def test_other_processors(monkeypatch, told):
    monkeypatch.setattr(processor, "description", lambda: told)
    assert not vectors.use_wide_vectors() and not os.environ["XLA_FLAGS"]


def test_not_with_an_accelerator(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    assert not vectors.use_wide_vectors()


@pytest.mark.parametrize("release", ["0.13.0", "1.0"])
def test_not_with_a_jaxlib_that_was_not_tried(monkeypatch, release):
    monkeypatch.setattr(vectors, "version", lambda package: release)
    assert not vectors.use_wide_vectors()


PROGRAM = """
from promptmad_jax.runtime.cpu import processor
from promptmad_jax.runtime.cpu import vector_width as vectors
processor.description = lambda: {"vendor_id": "AuthenticAMD", "flags": "avx512f"}
done = vectors.use_wide_vectors()
import jax
print(done == vectors._is_known(), jax.jit(lambda x: x + 1)(1.0))
"""


def test_xla_takes_what_it_is_given():
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["True", "2.0"]
