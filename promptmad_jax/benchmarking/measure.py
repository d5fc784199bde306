"""Compiles, times and traces the programs of the benchmark cases."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from promptmad_jax.benchmarking.cost import Cost, program_cost
from promptmad_jax.benchmarking.rows import Roof, Row
from promptmad_jax.benchmarking.timing import Budget, Call, time_calls


@dataclass(frozen=True)
class Bench:
    """Settings of a measurement.

    Attributes:
        profile: folder for traces, with a subfolder per case; "" for none.
    """

    budget: Budget
    roof: Roof
    profile: str = ""

    def time(self, case: str, call: Call) -> np.ndarray:
        """Times a call, then traces it once; see `time_calls`."""
        return self.time_together({case: call})[case]

    def time_together(self, calls: Mapping[str, Call]) -> dict[str, np.ndarray]:
        """Times several calls in turn, then traces each once."""
        seconds = time_calls(calls, self.budget)
        for case, call in calls.items() if self.profile else ():
            with jax.profiler.trace(str(Path(self.profile) / case)):
                jax.block_until_ready(call())
        return seconds


def compile_program(devices: int, jitted: Any, *arguments: Any) -> tuple[Cost, Row]:
    """Compiles a jitted function for these arguments, split over `devices`.

    Later calls of `jitted` find the program.

    Returns:
        Its cost over all devices, and the fields `compile_s`, XLA's compile time, and
        `program_mib`, its arguments, results and intermediate arrays on one device.
    """
    traced = jitted.trace(*arguments)
    lowered = traced.lower()
    begin = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - begin
    memory = compiled.memory_analysis()
    size = memory.argument_size_in_bytes + memory.output_size_in_bytes
    size += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    fields = {"compile_s": seconds, "program_mib": size / 2**20}
    return program_cost(traced, compiled, devices), fields
