"""What the processes of a run tell each other: a few gathers, sums of integers, and who goes first.

Every process makes the same calls in the same order. One process alone takes the same path.
"""

import functools
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from promptmad_jax.runtime.errors import UserError

_AXES = ("process", "device")
_LEAST_WORDS = 256

T = TypeVar("T")


class Communicator(Protocol):
    """Joins host arrays over processes.

    Attributes:
      index, count: this process, and how many there are.
    """

    index: int
    count: int

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        """The arrays of all processes in their order: [n_p, ...], of one dtype, n_p may differ."""
        ...

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The exact sum of the processes' int64 arrays, which have one shape."""
        ...


class Alone:
    """The only process of its run."""

    index, count = 0, 1

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        return [values]

    def sum(self, values: np.ndarray) -> np.ndarray:
        return values


ALONE = Alone()


class JaxProcesses:
    """The processes of `jax.distributed`, which talk through their devices.

    Arrays travel as 32-bit words, so that nothing is rounded or cut off where JAX has no 64-bit
    types. Their lengths are rounded up to powers of two, so that few programs are compiled.
    """

    def __init__(self):
        self.index, self.count = jax.process_index(), jax.process_count()
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
        mesh = Mesh(np.array(devices).reshape(self.count, -1), _AXES)
        self._row = NamedSharding(mesh, PartitionSpec(_AXES[0]))
        whole = NamedSharding(mesh, PartitionSpec())
        self._gather = jax.jit(lambda words: words, out_shardings=whole)
        self._sum = jax.jit(lambda words: words.sum(axis=0), out_shardings=whole)

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        """See `Communicator`."""
        content = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        length = np.array([len(content)], np.int64).view(np.uint32)
        lengths = np.asarray(self._gather(self._rows(length))).view(np.int64)[:, 0]
        room = _round_up(-(-int(lengths.max()) // 4)) * 4
        padded = np.pad(content, (0, room - len(content))).view(np.uint32)
        rows = np.asarray(self._gather(self._rows(padded))).view(np.uint8)
        return [
            np.frombuffer(row[:length].tobytes(), values.dtype).reshape(-1, *values.shape[1:])
            for row, length in zip(rows, lengths, strict=True)
        ]

    def sum(self, values: np.ndarray) -> np.ndarray:
        """See `Communicator`; exact for up to 65,536 processes."""
        # Sums of 16-bit digits stay below 2**32; carries follow here, modulo 2**64.
        digits = np.ascontiguousarray(values, np.int64).ravel().view(np.uint16).astype(np.uint32)
        padded = np.pad(digits, (0, _round_up(len(digits)) - len(digits)))
        sums = np.asarray(self._sum(self._rows(padded)))[: len(digits)].reshape(-1, 4)
        total = (sums.astype(np.uint64) << np.arange(0, 64, 16, dtype=np.uint64)).sum(axis=1)
        return total.view(np.int64).reshape(values.shape)

    def _rows(self, words: np.ndarray) -> jax.Array:
        """The words uint32 [L] of every process as [processes, L]."""
        shape = (self.count, len(words))
        return jax.make_array_from_process_local_data(self._row, words[None], shape)


def _round_up(words: int) -> int:
    return max(_LEAST_WORDS, 1 << (words - 1).bit_length())


def this_run() -> Communicator:
    """The processes of this run: those of `jax.distributed`, or the only one."""
    return _joined() if jax.process_count() > 1 else ALONE


@functools.cache
def _joined() -> JaxProcesses:
    # One for all, so that its programs are compiled once.
    return JaxProcesses()


def gather_objects(communicator: Communicator, value: Any) -> list[Any]:
    """The JSON-like values of all processes."""
    encoded = np.frombuffer(json.dumps(value).encode(), np.uint8)
    return [json.loads(part.tobytes()) for part in communicator.gather(encoded)]


def agree(communicator: Communicator, value: Any) -> None:
    """Checks that all processes are about to do the same, before they wait for each other.

    Raises:
      ValueError: with what each of them has.
    """
    values = gather_objects(communicator, value)
    if any(other != values[0] for other in values):
        raise ValueError(f"the processes of the evaluation disagree: {values}")


def jointly(communicator: Communicator, work: Callable[[], T]) -> T:
    """The result of local `work`, once all processes have done theirs.

    Raises:
      UserError: on every process, the first that any of them met; or else the others would wait
        for it for ever.
    """
    result, failure = None, None
    try:
        result = work()
    except UserError as error:
        failure = error
    messages = gather_objects(communicator, None if failure is None else str(failure))
    first = next((message for message in messages if message is not None), None)
    if first is not None:
        raise UserError(first) from failure
    return result


def is_writer() -> bool:
    """Whether this process writes what belongs to the whole run: reports, metrics, the manifest."""
    return jax.process_index() == 0


def leader_first(
    communicator: Communicator, directory: str | os.PathLike, work: Callable[[], T]
) -> T:
    """The result of `work`, which keeps what it makes below `directory`.

    Of the processes that share this directory one works first; the others, in the meantime idle,
    then find what it kept. Where machines have disks of their own, one process on each goes first.

    Raises:
      UserError: on every process, the first that any of them met.
    """
    if communicator.count == 1:
        return work()
    leading = jointly(communicator, lambda: leads(communicator, directory))
    first = jointly(communicator, lambda: work() if leading else None)
    return jointly(communicator, lambda: first if leading else work())


def leads(communicator: Communicator, directory: str | os.PathLike) -> bool:
    """Whether this is the first of the processes that see the same `directory`; one does on each
    file system. Where nothing can be written there is nothing to lead, and all do."""
    name = gather_objects(communicator, uuid.uuid4().hex)[0]
    token = Path(directory) / f".process-{name}-{communicator.index}"
    written = _touch(token)
    communicator.gather(np.zeros(1, np.int64))
    seen = [int(path.name.rpartition("-")[2]) for path in token.parent.glob(f".process-{name}-*")]
    communicator.gather(np.zeros(1, np.int64))
    if not written:
        return True
    token.unlink()
    return communicator.index == min(seen)


def _touch(path: Path) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError:
        return False
    return True
