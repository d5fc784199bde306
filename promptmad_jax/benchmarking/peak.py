"""What the machine can do at most: operations and bytes a second."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from promptmad_jax.benchmarking.rows import Row, timed_row
from promptmad_jax.benchmarking.timing import Budget, time_calls

# Large enough to reach the peak, small enough for a sample: side of the matrices, floats copied.
_SIDE = {"cpu": 2048}
_FLOATS = {"cpu": 2**26}
_OTHER_SIDE, _OTHER_FLOATS = 8192, 2**28


def measure_roof(dtype: str, budget: Budget) -> Iterator[Row]:
    """A large matrix product in `dtype`, and a copy of an array that no cache holds.

    The best sample counts: a roof is what can be reached.
    """
    platform = jax.default_backend()
    side = _SIDE.get(platform, _OTHER_SIDE)
    matrix = jnp.ones((side, side), dtype)
    product = jax.jit(lambda x: x @ x)
    vector = jnp.ones((_FLOATS.get(platform, _OTHER_FLOATS),), jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    jax.block_until_ready((product(matrix), copy(vector)))
    products = time_calls(lambda: product(matrix), budget)
    copies = time_calls(lambda: copy(vector), budget)
    yield timed_row("roof", None, products) | {
        "dtype": dtype,
        "gflop_per_s": 2 * side**3 / min(products.seconds) / 1e9,
        "gbyte_per_s": 2 * vector.nbytes / min(copies.seconds) / 1e9,
    }
