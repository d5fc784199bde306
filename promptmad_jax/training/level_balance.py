"""Brings the levels of a backbone to one scale, without changing what it computes otherwise."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import jax
import numpy as np

from promptmad_jax.models.efficientnet import Architecture, Block
from promptmad_jax.models.functional import Params


def balance_levels(
    architecture: Architecture, params: Params, deviations: Sequence[np.ndarray]
) -> Params:
    """Divides the channels of the taps by `deviations`.

    An error of reconstruction adds up the channels of all levels, so a level of large values
    silences the others. A stage ends in a linear projection; dividing its channels, and multiplying
    the weights of what reads them, leaves every later activation as it was. A stage that ends in an
    activation (`plain`) cannot be divided so and stays as it is.

    Args:
        params: of the backbone, BatchNorm folded.
        deviations: [C] for each tap, all positive.

    Raises:
        ValueError: a block reads its input without an expansion, as EfficientNet-B4's first do.
    """
    for block in architecture.blocks:
        if block.kind == "mbconv" and block.expanded == block.inputs:
            raise ValueError(f"{architecture.name}: {block.name} does not expand its input")
    params = jax.tree.map(np.asarray, params)
    remaining = iter(deviations)
    for stage, following in _stages(architecture):
        if not stage[-1].tapped:
            continue
        deviation = np.asarray(next(remaining))
        if stage[0].kind == "plain":
            continue
        for block in stage:
            project = params[block.name]["project"]
            project["kernel"] = project["kernel"] / deviation
            project["bias"] = project["bias"] / deviation
        for reader in (*stage[1:], *following[:1]):
            expand = params[reader.name]["expand"]
            expand["kernel"] = expand["kernel"] * deviation[:, None]
    return params


def _stages(architecture: Architecture) -> Iterator[tuple[list[Block], list[Block]]]:
    """Each stage's blocks, and those of the next one."""
    stages = [
        list(blocks) for _, blocks in groupby(architecture.blocks, lambda block: block.name[:-1])
    ]
    yield from zip(stages, [*stages[1:], []], strict=True)
