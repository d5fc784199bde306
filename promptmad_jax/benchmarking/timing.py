"""Repeated calls on the clock."""

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
    """How long a measurement goes on.

    Attributes:
        samples: how many are wanted.
        sample_s: short calls are repeated within a sample until it lasts about so long.
        most_s: once this has passed, three samples are enough.
    """

    samples: int = 9
    sample_s: float = 0.2
    most_s: float = 40.0


@dataclass(frozen=True)
class Timing:
    """Seconds a call, one figure a sample, in the order of the samples."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def quartiles(self) -> tuple[float, float]:
        """A quarter of the samples lies below the first, a quarter above the second."""
        low, high = np.quantile(self.seconds, (0.25, 0.75))
        return float(low), float(high)

    def less(self, other: "Timing") -> "Timing":
        """What each sample took longer than the other's sample of the same round."""
        return Timing(tuple(a - b for a, b in zip(self.seconds, other.seconds, strict=True)))


def time_calls(call: Call, budget: Budget) -> Timing:
    """Times a call that has been made before, so that nothing is compiled; see `time_together`."""
    return time_together({"": call}, budget)[""]


def time_together(calls: Mapping[str, Call], budget: Budget) -> dict[str, Timing]:
    """Times several calls in turn, so that a slow minute of the machine meets all of them.

    Arrays that the last call of a sample returns are waited for.
    """
    begin = time.perf_counter()
    repeats = {}
    for name, call in calls.items():
        once = _sample(call, 1)
        repeats[name] = max(1, math.ceil(budget.sample_s / once))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for taken in range(budget.samples):
        if taken >= 3 and time.perf_counter() - begin > budget.most_s:
            break
        for name, call in calls.items():
            seconds[name].append(_sample(call, repeats[name]))
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def _sample(call: Call, repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        result = call()
    jax.block_until_ready(result)
    return (time.perf_counter() - begin) / repeats
