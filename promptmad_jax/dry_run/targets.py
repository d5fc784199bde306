"""Devices that programs are compiled for, at hand or not."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

from promptmad_jax.runtime.errors import UserError

_GIB = 2**30
_FORMS = "it must be cpu:8, a TPU slice as v5e:2x4, or machines x GPUs as h200:1x8"


@dataclass(frozen=True)
class Chip:
    """Published figures of an accelerator, one JAX device of it.

    Attributes:
        name: as in `--compile_for`.
        platform: "tpu" or "cuda".
        memory: bytes.
        bandwidth: of the memory, bytes per second.
        bfloat16, float32: dense products, FLOP/s; float32 in TF32 on GPUs.
        clock: Hz of the cycles that a TPU's compiler estimates; 0 for GPUs.
    """

    name: str
    platform: str
    memory: float
    bandwidth: float
    bfloat16: float
    float32: float
    clock: float = 0.0


# Google's and NVIDIA's data sheets. The clock follows from the peak and the matrix units' size: a
# v5e has four of 128 x 128, 197e12 = 4 x 2 x 128^2 x 1.5e9.
_CHIPS = (
    Chip("v4", "tpu", 32 * _GIB, 1.2e12, 275e12, 275e12 / 6, 1.05e9),
    Chip("v5e", "tpu", 16 * _GIB, 0.82e12, 197e12, 197e12 / 6, 1.5e9),
    Chip("v5p", "tpu", 95 * _GIB, 2.8e12, 459e12, 459e12 / 6, 1.75e9),
    Chip("v6e", "tpu", 32 * _GIB, 1.6e12, 918e12, 918e12 / 6, 1.75e9),
    Chip("a100", "cuda", 80 * _GIB, 2.0e12, 312e12, 156e12),
    Chip("h100", "cuda", 80 * _GIB, 3.35e12, 989e12, 495e12),
    Chip("h200", "cuda", 141e9, 4.8e12, 989e12, 495e12),
    Chip("b200", "cuda", 180e9, 8.0e12, 2250e12, 1100e12),
)
CHIPS = {chip.name: chip for chip in _CHIPS}


@dataclass(frozen=True)
class Target:
    """Devices to compile for, and what is known of one of them; None for a CPU."""

    devices: Sequence[jax.Device] | None
    chip: Chip | None


def find_target(name: str) -> Target:
    """The devices of `--compile_for`; those of this machine for "".

    Raises:
        UserError: the name is none, or the package with the compiler is not installed.
    """
    if not name:
        return Target(None, None)
    kind, colon, shape = name.partition(":")
    sizes = shape.split("x") if colon else []
    if (kind != "cpu" and kind not in CHIPS) or not all(_positive(size) for size in sizes):
        raise UserError(f"--compile_for={name}: {_FORMS}; the accelerators are {', '.join(CHIPS)}")
    # Keeps JAX from searching for accelerators: the compilers need none.
    jax.config.update("jax_platforms", "cpu")
    if kind == "cpu":
        if len(sizes) != 1:
            raise UserError(f"--compile_for={name}: {_FORMS}")
        jax.config.update("jax_num_cpu_devices", int(shape))
        return Target(jax.devices("cpu"), None)
    chip = CHIPS[kind]
    find = _tpu_slice if chip.platform == "tpu" else _gpus
    try:
        return Target(find(chip, sizes), chip)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"--compile_for={name}: the compiler knows no such devices ({reason})"
        ) from error


def _positive(size: str) -> bool:
    return size.isdecimal() and int(size) > 0


def _tpu_slice(chip: Chip, sizes: list[str]) -> Sequence[jax.Device]:
    _require("libtpu", chip, "tpu")
    from jax.experimental import topologies

    # Neither ask Google's metadata server nor claim the chips: compiling takes none, so that
    # several processes may compile at once.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    name = f"{chip.name}:{'x'.join(sizes or ['1', '1'])}"
    return topologies.get_topology_desc(platform="tpu", topology_name=name).devices


def _gpus(chip: Chip, sizes: list[str]) -> Sequence[jax.Device]:
    _require("jax_plugins.xla_cuda13", chip, "cuda")
    from jax.experimental import topologies

    machines, gpus = sizes if len(sizes) == 2 else ["1", *(sizes or ["1"])]
    # From XLA's own collection, xla/tools/hlo_opt/gpu_specs (Apache-2.0).
    description = (Path(__file__).parent / "gpus" / f"{chip.name}.pbtxt").read_text()
    topology = f"1x{machines}x{gpus}"
    found = topologies.get_topology_desc(
        platform="cuda", target_config=description, topology=topology
    )
    return found.devices


def _require(package: str, chip: Chip, extra: str) -> None:
    parent = package.partition(".")[0]
    if importlib.util.find_spec(parent) is None or importlib.util.find_spec(package) is None:
        raise UserError(
            f"--compile_for={chip.name}: its compiler is not installed: "
            f"`pip install 'promptmad_jax[{extra}]'`"
        )
