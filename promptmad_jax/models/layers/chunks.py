"""A batch a few images at a time: what a CPU makes of more at once does not fit its caches."""

from collections.abc import Callable
from typing import Any

import jax


def images_a_pass(batch: int, most: int) -> int:
    """The largest divisor of `batch` that is at most `most`, or 1."""
    return next((n for n in range(min(batch, most), 1, -1) if batch % n == 0), 1)


def in_passes(function: Callable[..., Any], most: int, *arrays: jax.Array) -> Any:
    """The function of arrays [B, ...], at most so many images at a time; 0 takes all at once."""
    images = images_a_pass(len(arrays[0]), most) if most else len(arrays[0])
    if images == len(arrays[0]):
        return function(*arrays)
    passes = [x.reshape(-1, images, *x.shape[1:]) for x in arrays]
    results = jax.lax.map(lambda rows: function(*rows), passes)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), results)
