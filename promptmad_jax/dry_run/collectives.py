"""What a compiled program sends between devices, read off its text.

Only the partitioned program says so: which arrays are summed or gathered is XLA's decision.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_COLLECTIVE = re.compile(rf"^\s*(?:ROOT )?%?[\w.-]+ = (.*?) ({'|'.join(_KINDS)})(-start)?\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_ARRAY = re.compile(r"\b(pred|bf16|[suf]\d+\w*|c\d+)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:body|condition|to_apply|calls|(?:true|false)_computation)=%?([\w.-]+)"
    r"|(?:branch_computations|called_computations)=\{([^}]*)\}"
)
_LISTED_GROUPS = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_COUNTED_GROUPS = re.compile(r"replica_groups=\[\d+,(\d+)\]")
_MESH_GROUPS = re.compile(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}")


@dataclass(frozen=True)
class Collective:
    """One operation of the partitioned program.

    Attributes:
        kind: as XLA writes it, such as `all-reduce`.
        shapes: (dtype, dimensions) of each array of its result on one device.
        devices: how many take part in one group; 0 where the text does not say.
        origin: the operation that it was made for, as XLA keeps its name.
        in_loop: whether it runs once a turn of a loop, and so more often than is counted here.
    """

    kind: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    devices: int
    origin: str
    in_loop: bool

    @property
    def elements(self) -> int:
        """Elements of the result on one device."""
        return sum(math.prod(dimensions) for _, dimensions in self.shapes)

    @property
    def nbytes(self) -> int:
        """Bytes of the result on one device."""
        return sum(_width(dtype) * math.prod(dimensions) for dtype, dimensions in self.shapes)

    def sent(self, devices: int = 0) -> float:
        """Bytes that a device sends in a ring, the least that any algorithm can do.

        An all-reduce sends 2 (n - 1) / n of its bytes, half of them for the sum and half for
        spreading it; a reduce-scatter, whose result is 1 / n of what goes in, (n - 1) results; an
        all-gather and an all-to-all (n - 1) / n of the result.

        Args:
            devices: n, instead of that of the program.
        """
        n = devices or self.devices
        if self.kind == "all-reduce":
            return 2 * (n - 1) / n * self.nbytes
        if self.kind == "reduce-scatter":
            return (n - 1) * self.nbytes
        if self.kind in ("collective-permute", "collective-broadcast"):
            return self.nbytes
        return (n - 1) / n * self.nbytes


def find_collectives(program: str) -> list[Collective]:
    """All of a compiled program, from `jax.stages.Compiled.as_text()`, in its order."""
    lines = list(_by_computation(program.splitlines()))
    looped = _looped(lines)
    found = []
    for computation, line in lines:
        match = _COLLECTIVE.match(line)
        if match is None:
            continue
        result, kind, started = match.groups()
        origin = re.search(r'op_name="([^"]*)"', line)
        found.append(
            Collective(
                kind,
                _result_shapes(result, kind, bool(started)),
                _group_size(line),
                origin[1] if origin else "",
                computation in looped,
            )
        )
    return found


def _by_computation(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each line with the name of the computation that it is in."""
    computation = ""
    for line in lines:
        match = _COMPUTATION.match(line)
        if match is not None:
            computation = match[1]
        yield computation, line


def _looped(lines: list[tuple[str, str]]) -> set[str]:
    """The computations that a loop runs, with those that they call."""
    calls: dict[str, set[str]] = {}
    reached: set[str] = set()
    for computation, line in lines:
        names = {
            name
            for pair in _CALLED.findall(line)
            for name in re.findall(r"[\w.-]+", pair[0] + " " + pair[1])
        }
        calls.setdefault(computation, set()).update(names)
        if re.search(r"\bwhile\(", line):
            reached |= names
    waiting = list(reached)
    while waiting:
        new = calls.get(waiting.pop(), set()) - reached
        reached |= new
        waiting += new
    return reached


def _result_shapes(result: str, kind: str, started: bool):
    shapes = tuple(
        (dtype, tuple(int(size) for size in dimensions.split(",") if size))
        for dtype, dimensions in _ARRAY.findall(result)
    )
    # The start of an asynchronous pair returns its operands as well, and before the results.
    return shapes[len(shapes) // 2 :] if started and kind != "all-reduce" else shapes


def _group_size(line: str) -> int:
    if match := _COUNTED_GROUPS.search(line):
        return int(match[1])
    if match := _LISTED_GROUPS.search(line):
        return len(match[1].split(","))
    if match := _MESH_GROUPS.search(line):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", match[2]))
    return 0


def _width(dtype: str) -> int:
    """Bytes of an element."""
    return 1 if dtype == "pred" else max(1, int(re.search(r"\d+", dtype)[0]) // 8)
