"""Repeated timing of calls."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

Call = Callable[[], Any]


@dataclass(frozen=True)
class Budget:
    """Length of a measurement.

    Attributes:
        samples: number of samples.
        sample_s: shortest length of a sample; a shorter call is repeated within it.
        limit_s: after this time three samples are enough.
    """

    samples: int = 9
    sample_s: float = 0.2
    limit_s: float = 40.0


def time_calls(calls: Mapping[str, Call], budget: Budget) -> dict[str, np.ndarray]:
    """Times compiled calls in turn, so that a slow minute of the machine affects all of them.

    A sample ends when the arrays that its last call returns are ready.

    Returns:
        By name the seconds per call, float [samples], in the order of the samples.
    """
    begin = time.perf_counter()
    repeats = {
        name: max(1, math.ceil(budget.sample_s / _sample(call, 1))) for name, call in calls.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for taken in range(budget.samples):
        if taken >= 3 and time.perf_counter() - begin > budget.limit_s:
            break
        for name, call in calls.items():
            seconds[name].append(_sample(call, repeats[name]))
    return {name: np.array(values) for name, values in seconds.items()}


def _sample(call: Call, repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        result = call()
    jax.block_until_ready(result)
    return (time.perf_counter() - begin) / repeats
