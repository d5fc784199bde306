"""Timings of inference, whole and by stage."""

from collections.abc import Iterator

import jax
import numpy as np

from promptmad_jax.benchmarking.compilations import compile_times
from promptmad_jax.benchmarking.measure import Bench, compile_program
from promptmad_jax.benchmarking.rows import Row, cost_fields, timed_row
from promptmad_jax.methods.subject import Call, Program, Subject


def time_call(case: str, subject: Subject, call: Call, bench: Bench) -> Iterator[Row]:
    """Times a call from host to host, after a first call that compiles."""
    with compile_times() as times:
        jax.block_until_ready(call.function())
    row = timed_row(case, call.images, bench.time(case, call.function))
    yield row | subject.fields() | call.fields | {"compile_s": sum(times)}


def on_device(subject: Subject, batch_size: int, bench: Bench) -> Iterator[Row]:
    """Times inference with images and maps on the devices."""
    program = subject.on_device(batch_size)
    images = len(program.arguments[-1])
    cost, fields = compile_program(subject.mesh.size, program.jitted, *program.arguments)
    row = timed_row("inference_device", images, bench.time("inference_device", program))
    fields |= cost_fields(cost, images, row["median_s"], bench.roof)
    yield row | subject.fields() | fields


def stages(
    subject: Subject, programs: dict[str, Program], images: int, bench: Bench
) -> Iterator[Row]:
    """Times each part of inference, with everything on the devices.

    Time and cost of a part are the differences between its program and the one before.
    """
    costs = {
        name: compile_program(subject.mesh.size, program.jitted, *program.arguments)[0]
        for name, program in programs.items()
    }
    seconds = bench.time_together(programs)
    total = np.median(seconds["backbone"]) + np.median(seconds[list(programs)[-1]])
    before = None
    for name in programs:
        taken, cost = seconds[name], costs[name]
        if before is not None:
            taken, cost = taken - seconds[before], cost - costs[before]
        before = None if name == "backbone" else name
        row = timed_row(f"stage_{name}", images, taken)
        row |= subject.fields() | cost_fields(cost, images, row["median_s"], bench.roof)
        yield row | {"share_of_time": row["median_s"] / float(total)}
