"""Exchange between the processes of a run: gathered arrays, sums of integers, who works first.

Every process makes the same calls in the same order; a single process takes the same path.
"""

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from promptmad_jax.runtime import outputs
from promptmad_jax.runtime.errors import UserError

_LEAST_BYTES = 1024
_COUNTS_AT_ONCE = 2**20

T = TypeVar("T")


class Communicator(Protocol):
    """Joins host arrays over processes.

    Attributes:
      index, count: the index of this process, and the number of processes.
    """

    index: int
    count: int

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        """Returns the arrays of all processes in order: [n_p, ...], one dtype, any n_p."""
        ...


class Alone:
    """The only process of its run."""

    index, count = 0, 1

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        return [values]


ALONE = Alone()


class JaxProcesses:
    """The processes of `jax.distributed`.

    Arrays travel as bytes, so that nothing is rounded where JAX has no 64-bit types. Their lengths
    are rounded up to powers of two, so that few programs are compiled.
    """

    def __init__(self):
        self.index, self.count = jax.process_index(), jax.process_count()

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        """See `Communicator`."""
        content = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        lengths = process_allgather(np.array([len(content)], np.int64).view(np.uint8))
        lengths = lengths.view(np.int64)[:, 0]
        room = max(_LEAST_BYTES, 1 << (int(lengths.max()) - 1).bit_length())
        rows = process_allgather(np.pad(content, (0, room - len(content))))
        return [
            row[:length].copy().view(values.dtype).reshape(-1, *values.shape[1:])
            for row, length in zip(rows, lengths, strict=True)
        ]


def this_run() -> Communicator:
    """Returns the processes of `jax.distributed`, or the only process."""
    return JaxProcesses() if jax.process_count() > 1 else ALONE


def sum_counts(communicator: Communicator, counts: np.ndarray) -> np.ndarray:
    """Returns the exact sum of the processes' int64 arrays, which have one shape."""
    flat = counts.reshape(-1)
    # In parts, for what is gathered is as many times larger as there are processes.
    parts = np.split(flat, range(_COUNTS_AT_ONCE, len(flat), _COUNTS_AT_ONCE))
    sums = [np.sum(communicator.gather(part), axis=0, dtype=np.int64) for part in parts]
    return np.concatenate(sums).reshape(counts.shape)


def gather_objects(communicator: Communicator, value: Any) -> list[Any]:
    """Returns the JSON-like values of all processes, in order."""
    encoded = np.frombuffer(json.dumps(value).encode(), np.uint8)
    return [json.loads(part.tobytes()) for part in communicator.gather(encoded)]


def agree(communicator: Communicator, value: Any) -> None:
    """Checks that all processes have the same value, before they wait for each other.

    Raises:
      ValueError: they differ; the message holds the value of each.
    """
    values = gather_objects(communicator, value)
    if any(other != values[0] for other in values):
        raise ValueError(f"the processes of the evaluation disagree: {values}")


def jointly(communicator: Communicator, work: Callable[[], T]) -> T:
    """Returns the result of local `work` once all processes have done theirs.

    Raises:
      UserError: any process failed; all raise the first failure, so that none waits for another.
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


@contextlib.contextmanager
def claim_jointly(path: str, kind: str, flag: str, source: str = "") -> Iterator[None]:
    """Claims a folder by process 0 for all; see `outputs.claim`, whose UserError all raise."""
    with contextlib.ExitStack() as stack:
        claimed = outputs.claim(path, kind, flag, source)
        jointly(this_run(), lambda: stack.enter_context(claimed) if is_writer() else None)
        yield


def is_writer() -> bool:
    """Returns True on the process that writes the reports, metrics and manifest of the run."""
    return jax.process_index() == 0


def leader_first(
    communicator: Communicator, directory: str | os.PathLike, work: Callable[[], T]
) -> T:
    """Returns the result of `work`, which caches it below `directory`, computed once per disk.

    Of the processes that share this directory one works first while the others are idle; they then
    read what it cached. Where machines have disks of their own, one process on each goes first.

    Raises:
      UserError: any process failed; all raise the first failure.
    """
    if communicator.count == 1:
        return work()
    leading = jointly(communicator, lambda: leads(communicator, directory))
    first = jointly(communicator, lambda: work() if leading else None)
    return jointly(communicator, lambda: first if leading else work())


def leads(communicator: Communicator, directory: str | os.PathLike) -> bool:
    """Returns True on the first of the processes that share the file system of `directory`.

    Where the directory cannot be written, nothing can be shared, and all processes lead.
    """
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
