"""Collective operations of a compiled program, read from its text.

XLA decides which arrays are summed or gathered, so only the partitioned program shows them.
"""

import math
import re
from dataclasses import dataclass

from promptmad_jax.dry_run.hlo import arrays, dtype_width

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
_LISTED_GROUPS = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_COUNTED_GROUPS = re.compile(r"replica_groups=\[\d+,(\d+)\]")
_MESH_GROUPS = re.compile(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}")

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Collective:
    """A collective operation of the partitioned program.

    Attributes:
        kind: as XLA names it, such as `all-reduce`.
        shapes: (dtype, dimensions) of each array of its result on one device.
        devices: size of its groups; 0 if the text does not give it.
        origin: XLA's name of the operation that it serves.
    """

    kind: str
    shapes: Shapes
    devices: int
    origin: str = ""

    @property
    def in_loop(self) -> bool:
        """True if it serves an operation in a loop; `sent` counts one turn."""
        return "/while/" in self.origin

    @property
    def nbytes(self) -> int:
        """Bytes of the result on one device."""
        return sum(dtype_width(dtype) * math.prod(dimensions) for dtype, dimensions in self.shapes)

    def sent(self) -> float:
        """Bytes that a device sends in a ring, the minimum over all algorithms.

        With n devices an all-reduce sends 2 (n - 1) / n of its bytes, half of them to sum and half
        to distribute the sum; a reduce-scatter, whose result is 1 / n of its input, n - 1 results;
        an all-gather and an all-to-all (n - 1) / n of the result.
        """
        n = self.devices
        if self.kind == "all-reduce":
            return 2 * (n - 1) / n * self.nbytes
        if self.kind == "reduce-scatter":
            return (n - 1) * self.nbytes
        if self.kind in ("collective-permute", "collective-broadcast"):
            return self.nbytes
        return (n - 1) / n * self.nbytes


def find_collectives(program: str) -> list[Collective]:
    """Reads the text of a compiled program, `jax.stages.Compiled.as_text()`; in its order."""
    found = []
    for line in program.splitlines():
        if match := _COLLECTIVE.match(line):
            result, kind, started = match.groups()
            origin = re.search(r'op_name="([^"]*)"', line)
            shapes = _result_shapes(result, kind, bool(started))
            found.append(Collective(kind, shapes, _group_size(line), origin[1] if origin else ""))
    return found


def _result_shapes(result: str, kind: str, started: bool) -> Shapes:
    shapes = tuple(arrays(result))
    # The start of an asynchronous pair returns its operands before the results, but an all-reduce
    # only where XLA writes two tuples, as it does for several arrays on GPUs.
    both = started and (kind != "all-reduce" or result.startswith("(("))
    return shapes[len(shapes) // 2 :] if both else shapes


def _group_size(line: str) -> int:
    if match := _COUNTED_GROUPS.search(line):
        return int(match[1])
    if match := _LISTED_GROUPS.search(line):
        return len(match[1].split(","))
    if match := _MESH_GROUPS.search(line):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", match[2]))
    return 0
