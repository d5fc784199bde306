"""The programs of a run, compiled for devices that need not be there, and what they take."""

import time
from dataclasses import dataclass

import jax

from promptmad_jax.config import Config
from promptmad_jax.dry_run.collectives import Collective, find_collectives
from promptmad_jax.dry_run.estimate import Estimate, estimate
from promptmad_jax.dry_run.hlo import CompiledProgram
from promptmad_jax.dry_run.state import image_count
from promptmad_jax.dry_run.targets import Chip
from promptmad_jax.methods.method import AbstractTraining
from promptmad_jax.methods.subject import divisible

PROGRAMS = ("batch", "inference", "step")
# Images of MVTec-AD's training set, where the configured data set is not prepared here.
ASSUMED_IMAGES = 3629


@dataclass(frozen=True)
class Compiled:
    """Facts about a compiled program.

    Attributes:
        name: one of `PROGRAMS`.
        images: of a call, on all devices.
        seconds: of lowering and compiling.
        lines: of the optimized program's text.
        arguments, temporaries: bytes on one device; results that take the place of arguments are
            among these, others among the temporaries.
        collectives: what it sends.
        estimate: its time; None for a CPU.
    """

    name: str
    images: int
    seconds: float
    lines: int
    arguments: int
    temporaries: int
    collectives: list[Collective]
    estimate: Estimate | None

    @property
    def memory(self) -> int:
        """Bytes that it takes of a device."""
        return self.arguments + self.temporaries


def compile_program(
    name: str, config: Config, run: AbstractTraining, chip: Chip | None
) -> Compiled:
    """Compiles one of `PROGRAMS` with the real compiler of its devices."""
    images = config.train.batch_size
    if name == "inference":
        images = divisible(config.eval.batch_size, run.mesh)
    start = time.perf_counter()
    compiled = trace_program(name, config, run).lower().compile()
    seconds, text = time.perf_counter() - start, compiled.as_text()
    memory = compiled.memory_analysis()
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Compiled(
        name,
        images,
        seconds,
        text.count("\n"),
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes + results,
        find_collectives(text),
        estimate(CompiledProgram(text), chip) if chip else None,
    )


def trace_program(name: str, config: Config, run: AbstractTraining) -> jax.stages.Traced:
    """Traces one of `PROGRAMS`."""
    match name:
        case "batch":
            return run.trace_batch(image_count(config) or ASSUMED_IMAGES)
        case "inference":
            return run.trace_inference()
        case "step":
            return run.trace()
    raise ValueError(name)
