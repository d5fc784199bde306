"""Instructions of a compiled program, read from its text: how often each runs, for which line."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_ARRAY = re.compile(r"\b(pred|bf16|[suf]\d+\w*|c\d+)\[([\d,]*)\]")
_TABLE_ROW = re.compile(r'^(\d+) (?:"(.*)"|\{(.*)\})$')
_CALLED = re.compile(
    r"(?:to_apply|calls|true_computation|false_computation|async_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_PACKAGE = "promptmad_jax/"
# They compute nothing.
_FREE = frozenset(
    ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while")
)
_CALLS = ("call", "conditional", "async-start")


@dataclass(frozen=True)
class Instruction:
    """An instruction of a compiled program.

    Attributes:
        name: as in the text.
        opcode: XLA's name of the operation.
        result: the text of its result's shape.
        operands: names of its operands.
        text: the whole line.
        computation: name of the computation that holds it.
        times: how often it runs in a call of the program.
    """

    name: str
    opcode: str
    result: str
    operands: tuple[str, ...]
    text: str
    computation: str
    times: int = 1

    @property
    def called(self) -> tuple[str, ...]:
        """The computations that it calls."""
        branches = _BRANCHES.search(self.text)
        listed = branches[1].split(",") if branches else []
        return (*_CALLED.findall(self.text), *(name.strip().lstrip("%") for name in listed))


def arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    """(dtype, dimensions) of each array in the text of a shape."""
    return [
        (dtype, tuple(int(size) for size in dimensions.split(",") if size))
        for dtype, dimensions in _ARRAY.findall(shape)
    ]


def nbytes(shape: str) -> int:
    """Bytes of the arrays in the text of a shape."""
    return sum(dtype_width(dtype) * math.prod(dims) for dtype, dims in arrays(shape))


def dtype_width(dtype: str) -> int:
    """Bytes per element."""
    return 1 if dtype == "pred" else max(1, int(re.search(r"\d+", dtype)[0]) // 8)


class CompiledProgram:
    """The text of a compiled program, `jax.stages.Compiled.as_text()`.

    Attributes:
        computations: instructions by name, by name of the computation.
        entry: name of the computation that a call runs.
    """

    def __init__(self, text: str):
        self._tables = _read_tables(text)
        self.computations: dict[str, dict[str, Instruction]] = {}
        current = self.entry = ""
        for line in text.splitlines():
            if header := _COMPUTATION.match(line):
                current = header[2]
                self.computations[current] = {}
                self.entry = current if header[1] else self.entry
            elif current and (match := _INSTRUCTION.match(line)):
                name, result, opcode, rest = match.groups()
                operands = tuple(re.findall(r"%([\w.\-]+)", _arguments(rest)))
                self.computations[current][name] = Instruction(
                    name, opcode, result, operands, line, current
                )

    @cached_property
    def executed(self) -> list[Instruction]:
        """The instructions of a call, loops multiplied out, all branches of a choice included."""
        return list(self._run(self.entry, 1))

    def _run(self, name: str, times: int) -> Iterator[Instruction]:
        for one in self.computations[name].values():
            if one.opcode == "while":
                body = re.search(r"body=%?([\w.\-]+)", one.text)[1]
                yield from self._run(body, times * self._turns(one))
            elif one.opcode in _CALLS:
                for called in one.called:
                    yield from self._run(called, times)
            elif one.opcode not in _FREE:
                yield Instruction(**(vars(one) | {"times": times}))

    def _turns(self, loop: Instruction) -> int:
        if known := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.text):
            return int(known[1])
        condition = self.computations[re.search(r"condition=%?([\w.\-]+)", loop.text)[1]]
        bounds = [re.search(r"s32\[\].* constant\((\d+)\)", x.text) for x in condition.values()]
        return max((int(bound[1]) for bound in bounds if bound), default=1)

    def shape_of(self, instruction: Instruction, operand: str) -> str:
        """The text of an operand's shape."""
        return self.computations[instruction.computation][operand].result

    def origin(self, instruction: Instruction) -> str:
        """The line of this package that an instruction serves, as "models/x.py:12"; "" if none.

        The innermost one; "gradient of" before those of the backward pass.
        """
        if frame := re.search(r"stack_frame_id=(\d+)", instruction.text):
            lines = self._tables.lines(int(frame[1]))
        else:
            found = re.search(r'source_file="([^"]*)" source_line=(\d+)', instruction.text)
            lines = [f"{found[1]}:{found[2]}"] if found else []
        own = [line.rpartition(_PACKAGE)[2] for line in lines if _PACKAGE in line]
        if not own:
            return ""
        return f"gradient of {own[0]}" if "transpose(" in instruction.text else own[0]


def _arguments(rest: str) -> str:
    """The text up to the parenthesis that closes an instruction's operands."""
    depth = 1
    for place, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return rest[:place]
    return rest


class _Tables:
    """The source positions at the head of a program's text."""

    def __init__(self, files: Mapping[int, str], places: Mapping, frames: Mapping):
        self._files, self._places, self._frames = files, places, frames

    def lines(self, frame: int) -> list[str]:
        """The lines of a frame and its callers, innermost first."""
        found = []
        while frame in self._frames:
            place = self._places[self._frames[frame]["file_location_id"]]
            found.append(f"{self._files[place['file_name_id']]}:{place['line']}")
            # A frame's parent is counted from 1 where 1 is "none".
            parent = self._frames[frame].get("parent_frame_id", 0) - 1
            frame = parent if parent != frame else 0
        return found


def _read_tables(text: str) -> _Tables:
    names = ("FileNames", "FileLocations", "StackFrames")
    tables: dict[str, dict] = {name: {} for name in names}
    table = None
    for line in text.splitlines():
        if _COMPUTATION.match(line):
            break
        if line and line[0].isalpha():
            table = tables.get(line)
        elif table is not None and (row := _TABLE_ROW.match(line)):
            fields = {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", row[3] or "")}
            table[int(row[1])] = row[2] if row[2] is not None else fields
    return _Tables(*(tables[name] for name in names))
