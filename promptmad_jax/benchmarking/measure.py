"""The tools that every case is measured with."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax

from promptmad_jax.benchmarking.cost import Cost, Roof, program_cost
from promptmad_jax.benchmarking.rows import Row, cost_fields
from promptmad_jax.benchmarking.timing import Budget, Call, Timing, time_calls, time_together


class Program(NamedTuple):
    """What is known of a compiled function besides its speed.

    Attributes:
        compile_s: what XLA took to compile it. program_mib: arguments, results and intermediate
            arrays on one device.
    """

    cost: Cost
    compile_s: float
    program_mib: float

    def fields(self, images: int, timing: Timing, roof: Roof) -> Row:
        """What its row says, with `timing` of one call for `images` images."""
        return cost_fields(self.cost, images, timing.median, roof) | {
            "compile_s": self.compile_s,
            "program_mib": self.program_mib,
        }


@dataclass(frozen=True)
class Bench:
    """How to measure.

    Attributes:
        profile: folder for a trace of each case, a subfolder each; none where empty.
    """

    budget: Budget
    roof: Roof
    profile: str = ""

    def time(self, case: str, call: Call) -> Timing:
        """Times calls, then traces one."""
        timing = time_calls(call, self.budget)
        self._trace(case, call)
        return timing

    def time_together(self, calls: Mapping[str, Call]) -> dict[str, Timing]:
        """As `time`, of several in turn."""
        timings = time_together(calls, self.budget)
        for case, call in calls.items():
            self._trace(case, call)
        return timings

    def compile(self, devices: int, jitted: Any, *arguments: Any) -> Program:
        """Compiles a jitted function for these arguments on so many devices; later calls of
        `jitted` find the program."""
        traced = jitted.trace(*arguments)
        lowered = traced.lower()
        begin = time.perf_counter()
        compiled = lowered.compile()
        seconds = time.perf_counter() - begin
        cost = program_cost(traced, compiled, devices)
        return Program(cost, seconds, program_mib(compiled))

    def _trace(self, case: str, call: Callable[[], Any]) -> None:
        if not self.profile:
            return
        with jax.profiler.trace(str(Path(self.profile) / case)):
            jax.block_until_ready(call())


def program_mib(compiled: Any) -> float:
    """Arguments, results and intermediate arrays of a program on one device."""
    memory = compiled.memory_analysis()
    every = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )
    return every / 2**20
