"""Operations and bytes of programs whose work is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from promptmad_jax.benchmarking.cost import program_cost
from promptmad_jax.benchmarking.rows import Roof, cost_fields

SIDE = 32
PRODUCT = 2 * SIDE**3
MATRIX = jnp.ones((SIDE, SIDE))


def times(count, unroll=1):
    """A matrix multiplied `count` times, in a loop."""
    step = lambda x, _: (x @ MATRIX, None)
    return lambda x: lax.scan(step, x, length=count, unroll=unroll)[0]


def nested(x):
    step = lambda x, _: (times(3)(x), None)
    return lax.scan(step, x, length=4)[0]


def mapped(x):
    return lax.map(lambda row: x @ row, jnp.stack([x] * 5))


def unread(x):
    times(10)(x)
    return jax.jit(lambda x: (times(2)(x), times(20)(x)))(x)[0]


def conditional(x):
    return lax.cond(x[0, 0] > 0, times(7), lambda x: x, x)


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (lambda x: x @ x, 1),
        (times(10), 10),
        (times(10, unroll=3), 10),
        (times(10, unroll=5), 10),
        (times(10, unroll=10), 10),
        (times(1), 1),
        (nested, 12),
        (mapped, 5),
        (conditional, 7),
        (jax.jit(times(6)), 6),
        (unread, 2),
    ],
)
def test_loops_are_counted_in_full(function, products):
    traced = jax.jit(function).trace(MATRIX)
    flops, accessed = program_cost(traced, traced.lower().compile())
    # Counters and conditions of the loops cost a few operations.
    assert products * PRODUCT <= flops < (products + 0.1) * PRODUCT
    assert accessed >= products * MATRIX.nbytes


def test_share_of_the_peak_and_floors():
    row = cost_fields(np.array([8e9, 4e9]), 2, 0.5, Roof(gflops=32.0, gbytes=80.0))
    assert row == {
        "gflop_per_image": 4.0,
        "mb_per_image": 2000.0,
        "gflop_per_s": 16.0,
        "floor_operations_s": 0.25,
        "share_of_peak": 0.5,
        "floor_bytes_s": 0.05,
    }


def test_without_a_roof_no_share():
    row = cost_fields(np.array([8e9, 4e9]), 2, 0.5, Roof())
    assert set(row) == {"gflop_per_image", "mb_per_image", "gflop_per_s"}
