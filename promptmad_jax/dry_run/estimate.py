"""The time that a compiled program takes an accelerator, from its text: a lower bound."""

import math
import re
from collections import Counter
from dataclasses import dataclass

from promptmad_jax.dry_run.hlo import CompiledProgram, Instruction, arrays, nbytes
from promptmad_jax.dry_run.targets import Chip

# Of a kernel that does little, on a GPU that replays a recorded graph.
_LAUNCH_S = 2e-6
_PRODUCTS = ("dot", "convolution")
_COPIES = ("copy-start", "copy-done", "slice-start", "slice-done")


@dataclass(frozen=True)
class Estimate:
    """The time of a call of a program on one device, a lower bound.

    Attributes:
        seconds: of all instructions, one after the other.
        kernels: instructions that run, each in every turn of its loop.
        by_line: seconds by line of the source, largest first; "" for what serves none.
    """

    seconds: float
    kernels: int
    by_line: dict[str, float]


def estimate(program: CompiledProgram, chip: Chip) -> Estimate:
    """Adds up what the instructions of a compiled program take.

    On a TPU these are its compiler's own estimates; it has none for gathers of single elements and
    for scalar code. On a GPU the larger of the time to read and write its arrays and that of its
    products at the peak rate. Communication is left out.
    """
    measure = _tpu_seconds if chip.platform == "tpu" else _gpu_seconds
    by_line: Counter[str] = Counter()
    kernels = 0
    for instruction in program.executed:
        seconds = measure(program, instruction, chip) * instruction.times
        by_line[program.origin(instruction)] += seconds
        kernels += instruction.times
    return Estimate(by_line.total(), kernels, dict(by_line.most_common()))


def _tpu_seconds(program: CompiledProgram, instruction: Instruction, chip: Chip) -> float:
    del program
    return estimated_cycles(instruction) / chip.clock


def estimated_cycles(instruction: Instruction) -> int:
    """The cycles that TPU's compiler estimates for an instruction; 0 where it has none."""
    cycles = re.search(r'estimated_cycles":"(\d+)"', instruction.text)
    return int(cycles[1]) if cycles else 0


def _gpu_seconds(program: CompiledProgram, instruction: Instruction, chip: Chip) -> float:
    if instruction.opcode in _COPIES:
        return 0.0
    shapes = [instruction.result, *_operand_shapes(program, instruction)]
    moved = sum(map(nbytes, shapes)) / chip.bandwidth
    return max(_LAUNCH_S, moved, _product_seconds(program, instruction, chip))


def _operand_shapes(program: CompiledProgram, instruction: Instruction) -> list[str]:
    return [program.shape_of(instruction, name) for name in instruction.operands]


def _product_seconds(program: CompiledProgram, instruction: Instruction, chip: Chip) -> float:
    """The time of the products in an instruction or in the computation that a fusion calls."""
    inside = [instruction]
    for called in instruction.called:
        inside += program.computations.get(called, {}).values()
    seconds = 0.0
    for one in inside:
        if (flops := product_flops(program, one)) and one.operands:
            dtype = arrays(program.shape_of(one, one.operands[0]))[0][0]
            seconds += flops / (chip.float32 if dtype == "f32" else chip.bfloat16)
    return seconds


def product_flops(program: CompiledProgram, instruction: Instruction) -> int:
    """Floating-point operations of a matrix product or convolution; 0 for all else."""
    text, opcode = instruction.text, instruction.opcode
    library = opcode == "custom-call"
    if not (library or opcode in _PRODUCTS):
        return 0
    shapes = arrays(instruction.result)
    outputs = math.prod(shapes[0][1]) if shapes else 0
    if contracted := re.search(r'lhs_contracting_dim\w*"?[=:][{\[]([\d,"]*)[}\]]', text):
        first = arrays(program.shape_of(instruction, instruction.operands[0]))[0][1]
        places = [int(place) for place in re.findall(r"\d+", contracted[1])]
        return 2 * outputs * math.prod(first[place] for place in places)
    if labels := re.search(r"dim_labels=\w+_(\w+)->", text):
        kernel = arrays(program.shape_of(instruction, instruction.operands[1]))[0][1]
        if len(kernel) != len(labels[1]):  # cuDNN's vectorised layouts
            return 0
        features = kernel[labels[1].index("o")]
        return 2 * outputs * math.prod(kernel) // max(1, features)
    return 0
