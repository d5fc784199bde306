"""Timings of inference, whole and by stage."""

from collections.abc import Iterator

import jax

from promptmad_jax.benchmarking.compilations import Compilations
from promptmad_jax.benchmarking.measure import Bench
from promptmad_jax.benchmarking.rows import Row, cost_fields, timed_row
from promptmad_jax.methods.subject import Call, Program, Subject


def time_call(case: str, subject: Subject, call: Call, bench: Bench) -> Iterator[Row]:
    """Times a call from host to host, after a first call that compiles."""
    with Compilations() as compilations:
        jax.block_until_ready(call.function())
    row = timed_row(case, call.images, bench.time(case, call.function))
    yield row | subject.fields() | call.fields | {"compile_s": compilations.seconds}


def on_device(subject: Subject, batch_size: int, bench: Bench) -> Iterator[Row]:
    """Times inference with images and maps on the devices."""
    program = subject.on_device(batch_size)
    images = len(program.arguments[-1])
    compiled = bench.compile(subject.mesh.size, program.jitted, *program.arguments)
    timing = bench.time("inference_device", program)
    row = timed_row("inference_device", images, timing) | subject.fields()
    yield row | compiled.fields(images, timing, bench.roof)


def stages(
    subject: Subject, programs: dict[str, Program], images: int, bench: Bench
) -> Iterator[Row]:
    """Times each part of inference, with everything on the devices.

    Time and cost of a part are the differences between its program and the one before.
    """
    costs = {
        name: bench.compile(subject.mesh.size, program.jitted, *program.arguments).cost
        for name, program in programs.items()
    }
    timings = bench.time_together(programs)
    total = timings["backbone"].median + timings[list(programs)[-1]].median
    before = None
    for name in programs:
        timing, cost = timings[name], costs[name]
        if before is not None:
            timing, cost = timing - timings[before], cost - costs[before]
        before = None if name == "backbone" else name
        yield (
            timed_row(f"stage_{name}", images, timing)
            | subject.fields()
            | cost_fields(cost, images, timing.median, bench.roof)
            | {"share_of_time": timing.median / total}
        )
