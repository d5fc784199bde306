"""Compiles, times and traces the programs of the benchmark cases."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax

from promptmad_jax.benchmarking.cost import Cost, Roof, program_cost
from promptmad_jax.benchmarking.rows import Row, cost_fields
from promptmad_jax.benchmarking.timing import Budget, Call, Timing, time_calls


class Program(NamedTuple):
    """Cost of a compiled function.

    Attributes:
        compile_s: XLA's compile time.
        program_mib: arguments, results and intermediate arrays on one device.
    """

    cost: Cost
    compile_s: float
    program_mib: float

    def fields(self, images: int, timing: Timing, roof: Roof) -> Row:
        """The fields of its row, for a call that takes `images` images and `timing`."""
        return cost_fields(self.cost, images, timing.median, roof) | {
            "compile_s": self.compile_s,
            "program_mib": self.program_mib,
        }


@dataclass(frozen=True)
class Bench:
    """Settings of a measurement.

    Attributes:
        profile: folder for traces, with a subfolder per case; "" for none.
    """

    budget: Budget
    roof: Roof
    profile: str = ""

    def time(self, case: str, call: Call) -> Timing:
        """Times a call, then traces it once."""
        return self.time_together({case: call})[case]

    def time_together(self, calls: Mapping[str, Call]) -> dict[str, Timing]:
        """Times several calls in turn, then traces each once."""
        timings = time_calls(calls, self.budget)
        for case, call in calls.items() if self.profile else ():
            with jax.profiler.trace(str(Path(self.profile) / case)):
                jax.block_until_ready(call())
        return timings

    def compile(self, devices: int, jitted: Any, *arguments: Any) -> Program:
        """Compiles a jitted function for these arguments, split over `devices`.

        Later calls of `jitted` find the program.
        """
        traced = jitted.trace(*arguments)
        lowered = traced.lower()
        begin = time.perf_counter()
        compiled = lowered.compile()
        seconds = time.perf_counter() - begin
        memory = compiled.memory_analysis()
        size = (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            + memory.temp_size_in_bytes
            - memory.alias_size_in_bytes
        )
        return Program(program_cost(traced, compiled, devices), seconds, size / 2**20)
