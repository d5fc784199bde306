"""Counts what a program takes a TPU from its final schedule, without a TPU.

    python -m tools.count_bundles --config=promptmad_mvtec.py --program=inference \
        --config.eval.batch_size=256 [--compile_for=v5e:1x1]

XLA's own estimates, which `train --compile_for` adds up, come from a cost model and are made before
there is code. This has the compiler write its code: bundles, the instruction words of which the
chip starts one per cycle, loops multiplied out. An instruction takes its bundles, or the time to
move its arrays from and to the device's memory if that is longer. Waiting for results, for the
matrix units and for other chips is in neither, so it is a lower bound. Needs libtpu, and several
times as long as compiling does.
"""

import os
import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from absl import app, flags
from rich.console import Console
from rich.table import Table

from promptmad_jax.config import parse
from promptmad_jax.dry_run.estimate import estimated_cycles
from promptmad_jax.dry_run.hlo import CompiledProgram, Instruction, nbytes
from promptmad_jax.dry_run.programs import PROGRAMS, trace_program
from promptmad_jax.dry_run.targets import Chip, find_target
from promptmad_jax.methods.method import open_method
from promptmad_jax.runtime.config_file import define_config_flag
from promptmad_jax.runtime.mesh import make_mesh

_CONFIG = define_config_flag("configuration of the program", default="promptmad_mvtec.py")
_PROGRAM = flags.DEFINE_enum("program", "inference", PROGRAMS, "the program to count")
_TARGET = flags.DEFINE_string("compile_for", "v5e:1x1", "a TPU slice, as in `train`")

_FLAGS = (
    "--xla_jf_dump_to={} --xla_jf_dump_llo_text=true "
    "--xla_jf_dump_llo_pass_label_regex=^final_bundles$"
)
_FILE = re.compile(r"\d+-(.*)-\d+-final_bundles\.txt")
_BUNDLE = re.compile(r"^\s*(?:0x[0-9a-f]+|0)\s*([A-Z]{2})?\s*:\s*(>*)\s*\{(.*)", re.MULTILINE)
_BOUND = re.compile(r"%(p\d+_p\d+) = scmp\.ge\.s32\.totalorder %s\S+ (\d+)")
_BACK = re.compile(r"sbr\.rel \(!%(p\d+_p\d+)\)")
_PARAMETER = re.compile(r" parameter\((\d+)\)")
_ARRAY = re.compile(r"\w+\[[\d,]*\](?:\{[^}]*\})?")
# Arrays with this mark lie in the chip's vector memory.
_ON_CHIP = "S(1)"
_VIEWS = ("bitcast", "copy", "reshape", "transpose")
_LINES = 20


@dataclass
class _Loop:
    depth: int
    bundles: int = 0
    turns: int | None = None


@dataclass(frozen=True)
class Schedule:
    """The code of an instruction.

    Attributes:
        bundles: that are started, loops multiplied out.
        unknown: loops whose number of turns is no constant; they count as one turn.
    """

    bundles: int
    unknown: int


def read_schedule(text: str) -> Schedule:
    """Reads the compiler's text of an instruction's final bundles."""
    bounds = {name: int(bound) for name, bound in _BOUND.findall(text)}
    loops, unknown = [_Loop(0)], 0

    def close() -> None:
        nonlocal unknown
        inner = loops.pop()
        unknown += inner.turns is None
        loops[-1].bundles += inner.bundles * (inner.turns or 1)

    for mark, arrows, words in _BUNDLE.findall(text):
        back = _BACK.search(words)
        turns = bounds.get(back[1]) if back else None
        if mark == "LB":
            while loops[-1].depth >= len(arrows):
                close()
            loops.append(_Loop(len(arrows)))
        elif not words.startswith("}"):  # an empty bundle is written without its depth
            while loops[-1].depth > len(arrows):
                if loops[-1].turns is None:
                    loops[-1].turns, turns = turns, None
                close()
        loops[-1].turns = turns or loops[-1].turns
        loops[-1].bundles += 1
    while len(loops) > 1:
        close()
    return Schedule(loops[0].bundles, unknown)


def moved_bytes(program: CompiledProgram, instruction: Instruction) -> int:
    """Bytes between the device's memory and the chip; of an array that is cut, only the part."""
    body, names = _body(program, instruction)
    total = _off_chip(instruction.result) - _kept(program, body)
    for operand, name in zip(instruction.operands, names, strict=True):
        shape = program.shape_of(instruction, operand)
        part = _part_read(program, body, name) if _off_chip(shape) else 0
        total += _off_chip(shape) if part is None else part
    return total


def _body(
    program: CompiledProgram, instruction: Instruction
) -> tuple[dict[str, Instruction], list[str]]:
    """The instructions that a fusion consists of, or itself, and their names of its operands."""
    if instruction.opcode != "fusion":
        return {instruction.name: instruction}, list(instruction.operands)
    body = program.computations[instruction.called[0]]
    places = {int(m[1]): name for name, one in body.items() if (m := _PARAMETER.search(one.text))}
    return body, [places[place] for place in range(len(instruction.operands))]


def _off_chip(shape: str) -> int:
    return sum(nbytes(array) for array in _ARRAY.findall(shape) if _ON_CHIP not in array)


def _part_read(program: CompiledProgram, body: dict[str, Instruction], name: str) -> int | None:
    """Bytes of an array that a fusion reads, if it only cuts from it; None if it reads all."""
    total = 0
    for user in body.values():
        if name not in user.operands:
            continue
        if user.opcode == "dynamic-slice":
            part = nbytes(user.result)
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
            part = 0
        elif user.opcode in _VIEWS:
            part = _part_read(program, body, user.name)
        elif user.opcode == "fusion":
            inner, names = _body(program, user)
            part = _part_read(program, inner, names[user.operands.index(name)])
        else:
            part = None
        if part is None:
            return None
        total += part
    return total


def _kept(program: CompiledProgram, body: dict[str, Instruction]) -> int:
    """Bytes of the results that stay as they are, where only a part is written."""
    *_, root = body.values()
    results = [body[name] for name in root.operands] if root.opcode == "tuple" else [root]
    results = [body[one.operands[0]] if one.opcode == "bitcast" else one for one in results]
    return sum(
        nbytes(one.result) - nbytes(program.shape_of(one, one.operands[1]))
        for one in results
        if one.opcode == "dynamic-update-slice" and _off_chip(one.result)
    )


@dataclass(frozen=True)
class Row:
    """Milliseconds of an instruction, all turns of its loop.

    Attributes:
        origin: the line of the source that it serves.
        xla: by XLA's estimate. code: by its bundles. memory: to move its arrays.
        unknown: see `Schedule`.
    """

    origin: str
    xla: float
    code: float
    memory: float
    unknown: int

    @property
    def longer(self) -> float:
        return max(self.code, self.memory)


def rows(program: CompiledProgram, schedules: dict[str, Schedule], chip: Chip) -> list[Row]:
    """A row for each instruction that has code; equal ones are compiled, and written, once."""
    equal = {
        _key(program, one): schedules[one.name] for one in program.executed if one.name in schedules
    }
    found = []
    for one in program.executed:
        schedule = schedules.get(one.name) or equal.get(_key(program, one))
        cycles = estimated_cycles(one)
        if schedule is None and not cycles:
            continue
        code = schedule.bundles if schedule else cycles
        memory = moved_bytes(program, one) / chip.bandwidth
        seconds = (cycles / chip.clock, code / chip.clock, memory)
        unknown = schedule.unknown if schedule else 0
        found.append(Row(program.origin(one), *(1e3 * one.times * s for s in seconds), unknown))
    return found


def _key(program: CompiledProgram, one: Instruction) -> tuple:
    shapes = tuple(program.shape_of(one, name) for name in one.operands)
    return one.opcode, one.result, shapes, estimated_cycles(one)


def main(argv: list[str]) -> None:
    """Compiles and prints the table."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIBTPU_INIT_ARGS"] = _FLAGS.format(folder)
        target, config = find_target(_TARGET.value), parse(_CONFIG.value)
        if target.chip is None or target.chip.platform != "tpu":
            raise app.UsageError(f"--compile_for={_TARGET.value}: it must be a TPU slice")
        mesh = make_mesh(config.mesh, target.devices)
        run = open_method(config).abstract_training(mesh, "tpu")
        compiled = trace_program(_PROGRAM.value, config, run).lower().compile()
        program = CompiledProgram(compiled.as_text())
        schedules = {
            match[1]: read_schedule(path.read_text())
            for path in Path(folder).iterdir()
            if (match := _FILE.fullmatch(path.name))
        }
    print_rows(rows(program, schedules, target.chip))


def print_rows(found: list[Row]) -> None:
    """Prints the sums, and the lines of the source that take the most."""
    table = Table("line", "ms", "by XLA's estimate", title=_PROGRAM.value)
    lines, estimates = Counter(), Counter()
    for row in found:
        lines[row.origin] += row.longer
        estimates[row.origin] += row.xla
    for line, milliseconds in lines.most_common(_LINES):
        table.add_row(line or "(none)", f"{milliseconds:.2f}", f"{estimates[line]:.2f}")
    console = Console()
    console.print(table)
    console.print(
        f"{lines.total():.2f} ms, the longer of code ({sum(row.code for row in found):.2f}) and "
        f"memory ({sum(row.memory for row in found):.2f}) for each instruction; by XLA's estimate "
        f"{estimates.total():.2f} ms. {sum(row.unknown for row in found)} loops of unknown length "
        "count as one turn."
    )


if __name__ == "__main__":
    app.run(main)
