"""XLA's flags by processor, and none that this jaxlib might not know."""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from promptmad_jax.runtime import processor, xla_cpu

WIDTH = "--xla_cpu_prefer_vector_width=512"
ONEDNN = " ".join(xla_cpu._ONEDNN)
ZEN4 = {"vendor_id": "AuthenticAMD", "flags": "fpu avx2 avx512f"}
SAPPHIRE_RAPIDS = {"vendor_id": "GenuineIntel", "flags": "fpu avx2 avx512f avx512_fp16"}


@pytest.fixture(autouse=True)
def zen4(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(processor, "description", lambda: ZEN4)
    monkeypatch.setattr(xla_cpu, "version", lambda package: "0.12.0.1")


def test_added_to_what_is_there(monkeypatch):
    assert xla_cpu.tune_xla() == (WIDTH,) and os.environ["XLA_FLAGS"] == WIDTH
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    assert xla_cpu.tune_xla() == (WIDTH,)
    assert os.environ["XLA_FLAGS"] == f"--xla_force_host_platform_device_count=8 {WIDTH}"
    assert xla_cpu.tune_xla() == ()


@pytest.mark.parametrize(
    ("jaxlib", "expected"),
    [("0.12.1", f"{WIDTH} {ONEDNN}"), ("0.11.3", WIDTH), ("0.10.2", WIDTH), ("0.13.0", "")],
)
def test_one_dnn_on_intel(monkeypatch, jaxlib, expected):
    monkeypatch.setattr(processor, "description", lambda: SAPPHIRE_RAPIDS)
    monkeypatch.setattr(xla_cpu, "version", lambda package: jaxlib)
    assert " ".join(xla_cpu.tune_xla()) == os.environ["XLA_FLAGS"] == expected


@pytest.mark.parametrize(
    ("flags", "added"),
    [
        ("--xla_cpu_prefer_vector_width=256", ONEDNN),
        ("--xla_cpu_use_onednn=false", WIDTH),
        ("flags.txt", ""),
    ],
)
def test_the_users_own_flags_stay(monkeypatch, flags, added):
    monkeypatch.setattr(processor, "description", lambda: SAPPHIRE_RAPIDS)
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert " ".join(xla_cpu.tune_xla()) == added
    assert os.environ["XLA_FLAGS"] == f"{flags} {added}".strip()


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
    assert xla_cpu.tune_xla() == () and not os.environ["XLA_FLAGS"]


def test_not_with_an_accelerator(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    assert xla_cpu.tune_xla() == ()


@pytest.mark.parametrize("release", ["0.13.0", "1.0"])
def test_not_with_a_jaxlib_that_was_not_tried(monkeypatch, release):
    monkeypatch.setattr(xla_cpu, "version", lambda package: release)
    assert xla_cpu.tune_xla() == ()


# What the backbone, attention and the segmentor are made of; `x * x` is where oneDNN failed once.
PROGRAM = """
from promptmad_jax.runtime import processor, xla_cpu
processor.description = lambda: {told!r}
added = xla_cpu.tune_xla()
import jax, numpy as np
from jax import numpy as jnp
x = jnp.linspace(-1, 1, 2 * 14 * 14 * 24, dtype=jnp.float32).reshape(2, 14, 14, 24)
kernel = jnp.linspace(-1, 1, 9 * 24 * 32, dtype=jnp.float32).reshape(3, 3, 24, 32)
def everything(x, kernel):
    numbers = ("NHWC", "HWIO", "NHWC")
    wide = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
    squeezed = (x.mean((1, 2)) * x.mean((1, 2))) @ kernel[1, 1]
    tokens = x.reshape(2, 196, 24)
    weights = jax.nn.softmax(jnp.einsum("bqc,bkc->bqk", tokens, tokens) / 5)
    read = jnp.einsum("bqk,bkc->bqc", weights, tokens)
    return wide.sum((1, 2)) + squeezed + jax.nn.relu(read @ kernel[0, 0]).sum(1)
found = [np.asarray(f(x, kernel)) for f in (jax.jit(everything), everything)]
print(len(added), np.abs(found[0] - found[1]).max() / np.abs(found[1]).max() < 1e-5)
"""


@pytest.mark.parametrize("told", [ZEN4, SAPPHIRE_RAPIDS], ids=["zen4", "sapphire_rapids"])
def test_xla_takes_what_it_is_given(told):
    program = PROGRAM.format(told=told)
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    count, agrees = result.stdout.split()
    assert agrees == "True"
    if tuple(map(int, version("jaxlib").split(".")[:2])) <= xla_cpu._NEWEST:
        assert int(count) > 0
