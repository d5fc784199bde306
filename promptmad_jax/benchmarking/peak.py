"""Peak rates of the machine: floating-point operations and memory traffic."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from promptmad_jax.benchmarking.rows import Row, timed_row
from promptmad_jax.benchmarking.timing import Budget, time_calls


def measure_roof(dtype: str, budget: Budget) -> Iterator[Row]:
    """Times a large matrix product in `dtype` and a copy of an array larger than any cache.

    The rates are those of the fastest sample.
    """
    # Large enough to reach the peak, small enough for a sample.
    side, floats = (2048, 2**26) if jax.default_backend() == "cpu" else (8192, 2**28)
    matrix, vector = jnp.ones((side, side), dtype), jnp.ones((floats,), jnp.float32)
    product, copy = jax.jit(lambda x: x @ x), jax.jit(lambda x: x + 1)
    calls = {"product": lambda: product(matrix), "copy": lambda: copy(vector)}
    jax.block_until_ready([call() for call in calls.values()])
    seconds = time_calls(calls, budget)
    yield timed_row("roof", None, seconds["product"]) | {
        "dtype": dtype,
        "gflop_per_s": float(2 * side**3 / seconds["product"].min() / 1e9),
        "gbyte_per_s": float(2 * vector.nbytes / seconds["copy"].min() / 1e9),
    }
