"""Prints the scaling table of pods.md: a count, from the compiled step, of what a pod would do.

    PYTHONPATH=. python docs/scaling.py [--images=8] [--configs=promptmad_mvtec,onenip_mvtec]

The operations of a step are those of XLA's cost analysis of the full-size step lowered for a TPU.
The all-reduces are those of the same step partitioned over eight pretended CPU devices: their
number and bytes do not depend on the number of devices, only the share of them that is sent does.
Needs no accelerator, no weights and no data.
"""

import argparse
import importlib
import os
from typing import NamedTuple

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
from jax.sharding import AbstractMesh

from promptmad_jax.abstract_run import abstract_run
from promptmad_jax.config import Config, parse
from promptmad_jax.dry_run import text_width
from promptmad_jax.models.functional import count_params
from promptmad_jax.runtime.collectives import Collective, find_collectives
from promptmad_jax.runtime.mesh import AXES, MeshConfig, make_mesh

DEVICES = (8, 16, 32, 64, 128, 256)
PARTITIONED = 8


class Chip(NamedTuple):
    """What its vendor states.

    Attributes:
        peak: operations a second in the format that float32 products take by default.
        near, far: bytes a second that a chip sends in a ring over up to 8, and over more.
    """

    name: str
    peak: float
    near: float
    far: float


# One direction: half of the bidirectional figures that are published. Between machines of eight
# GPUs a ring runs over eight network cards of 400 Gbit/s.
CHIPS = (
    Chip("v5e", 197e12, 200e9, 200e9),
    Chip("v5p", 459e12, 600e9, 600e9),
    Chip("H100, H200", 494.7e12, 450e9, 400e9),
)


def load(name: str, batch_size: int) -> Config:
    """A shipped configuration with a batch of this size."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config.train.batch_size = batch_size
    return parse(config)


def operations(name: str, images: int) -> float:
    """Floating-point operations of a step on one device, for an accelerator."""
    config = load(name, PARTITIONED * images)
    mesh = AbstractMesh((PARTITIONED, 1), AXES)
    traced = abstract_run(config, mesh, "tpu", text_width(config)).trace()
    return traced.lower(lowering_platforms=("tpu",)).cost_analysis()["flops"] / PARTITIONED


def partition(name: str, images: int) -> tuple[int, list[Collective]]:
    """Number of parameters, and what the partitioned step sends."""
    config = load(name, PARTITIONED * images)
    run = abstract_run(config, make_mesh(MeshConfig()), "cpu", text_width(config))
    compiled = run.trace().lower().compile()
    return count_params(run.state.params), find_collectives(compiled.as_text())


def shares(flops: float, sent: float, devices: int, utilization: float) -> list[str]:
    """The share of a step that sending takes on each chip, without any overlap."""
    cells = []
    for chip in CHIPS:
        computing = flops / (chip.peak * utilization)
        sending = sent / (chip.near if devices <= 8 else chip.far)
        cells.append(f"{100 * sending / (sending + computing):.0f} %")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=8, help="a device")
    parser.add_argument("--configs", default="promptmad_mvtec,onenip_mvtec")
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", PARTITIONED)
    for name in arguments.configs.split(","):
        flops = operations(name, arguments.images)
        parameters, collectives = partition(name, arguments.images)
        print(f"\n{name}: {parameters:,} parameters, {len(collectives)} all-reduces")
        print(f"kinds: {sorted({one.kind for one in collectives})}")
        chips = " | ".join(chip.name for chip in CHIPS)
        print(
            f"| devices | images a step | GFLOP a device | MB sent a device | {chips} | {chips} |"
        )
        print("|---" * (4 + 2 * len(CHIPS)) + "|")
        for devices in DEVICES:
            sent = sum(one.sent(devices) for one in collectives)
            row = [str(devices), str(devices * arguments.images)]
            row += [f"{flops / 1e9:.0f}", f"{sent / 1e6:.1f}"]
            row += shares(flops, sent, devices, 1.0) + shares(flops, sent, devices, 0.25)
            print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
