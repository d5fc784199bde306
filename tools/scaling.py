"""Prints the scaling table of pods.md: a count, from the lowered step, of what a pod would do.

    PYTHONPATH=. python tools/scaling.py [--images=8] [--configs=promptmad_mvtec,onenip_mvtec]

The operations of a step are those of XLA's cost analysis of the full-size step lowered for a TPU.
The bytes are those of the arrays that the devices sum: their number does not depend on how many
devices there are, only the share of them that is sent does. Needs no accelerator, no weights and no
data.
"""

import argparse
import os
import re
from dataclasses import dataclass
from typing import NamedTuple

os.environ["JAX_PLATFORMS"] = "cpu"

import jax

from promptmad_jax.config import Config, parse
from promptmad_jax.methods.reconstruction.abstract import AbstractReconstruction, abstract_training
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.mesh import abstract_mesh, leaf_name

DEVICES = (8, 16, 32, 64, 128, 256)


def elements(tree) -> int:
    """Number of scalars in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


class Chip(NamedTuple):
    """Figures of a chip, as its vendor states them.

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
    """A shipped configuration with a batch of this size, lowered as for an accelerator."""
    config = load_config(f"{name}.py")
    config.train.batch_size = batch_size
    config.backbone.depthwise = "conv"
    return parse(config)


@dataclass(frozen=True)
class Sums:
    """Elements that the devices add up in a step.

    Attributes:
        elements: all that could be. idle: those of them whose gradient is zero by construction, and
            which XLA leaves out.
    """

    elements: int
    idle: int


def summed_elements(config: Config, run: AbstractReconstruction) -> Sums:
    """Counts the elements that a step with a replicated state sums over the devices.

    A gradient is summed where it arises. So what is used in several places is summed for each of
    them, where XLA does not add up first: tests/distributed/test_lowering.py compares.
    """
    leaves = jax.tree_util.tree_leaves_with_path(run.state.params)
    sizes = {leaf_name(path): leaf.size for path, leaf in leaves}
    size = lambda pattern: sum(size for name, size in sizes.items() if re.search(pattern, name))
    # The tokens' positions [N, D], made of those of rows and columns, of encoder and decoder.
    tokens = (config.data.image_size // run.detector.backbone.strides[-1]) ** 2
    positions = 2 * tokens * config.reconstructor.width - size("(row|column)_embed$")
    # Projected for the prompts, and again for the images.
    text = size("reconstructor/text_(proj|norm)/")
    # Each BatchNorm: two moments on the way forward, two gradients on the way back.
    moments = 2 * elements(run.state.stats)
    # The terms of the loss, and the number of anomalous pixels that one of them is divided by.
    scalars = 6 + 1
    # The prompts see a single token of text, whatever their queries and its key.
    idle = size("prompt_text_attention/(query|key)/")
    return Sums(sum(sizes.values()) + positions + text + moments + scalars, idle)


class Step(NamedTuple):
    """A step of a configuration, on each device.

    Attributes:
        flops: floating-point operations. summed: bytes of what is summed over the devices.
    """

    parameters: int
    flops: float
    summed: int


def count(name: str, images: int) -> Step:
    """Counts the step on an accelerator with `images` a device."""
    config = load(name, DEVICES[0] * images)
    run = abstract_training(config, abstract_mesh(DEVICES[0]), "tpu")
    flops = run.trace().lower(lowering_platforms=("tpu",)).cost_analysis()["flops"]
    sums = summed_elements(config, run)
    parameters = elements(run.state.params)
    return Step(parameters, flops / DEVICES[0], 4 * (sums.elements - sums.idle))


def shares(flops: float, sent: float, devices: int, utilization: float) -> list[str]:
    """The share of a step that sending takes on each chip, without any overlap."""
    cells = []
    for chip in CHIPS:
        computing = flops / (chip.peak * utilization)
        sending = sent / (chip.near if devices <= 8 else chip.far)
        cells.append(f"{100 * sending / (sending + computing):.1f} %")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=8, help="a device")
    parser.add_argument("--configs", default="promptmad_mvtec,onenip_mvtec")
    arguments = parser.parse_args()
    for name in arguments.configs.split(","):
        print_table(name, arguments.images, count(name, arguments.images))


def print_table(name: str, images: int, step: Step) -> None:
    """The table of a configuration, by the number of devices."""
    print(f"\n{name}: {step.parameters:,} parameters, {step.flops / 1e9:.0f} GFLOP a device")
    chips = " | ".join(chip.name for chip in CHIPS)
    print(f"| devices | images a step | MB sent a device | {chips} | {chips} |")
    print("|---" * (3 + 2 * len(CHIPS)) + "|")
    for devices in DEVICES:
        sent = 2 * (devices - 1) / devices * step.summed
        row = [str(devices), str(devices * images), f"{sent / 1e6:.1f}"]
        row += shares(step.flops, sent, devices, 1.0) + shares(step.flops, sent, devices, 0.25)
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
