"""The memory of normal patches in a run's folder: `memory.safetensors`.

Arrays under the names of `Memory`'s fields, as described there, and `nearest` int32 [N, h, w], the
nearest patches of the training images. The metadata's `made_from` identifies the images, the
weights and the settings that it was made from.
"""

import hashlib
import json
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from promptmad_jax.models.reconstruction.memory import Memory
from promptmad_jax.runs.resume import newest_step
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import write_bytes_atomic
from promptmad_jax.training.memory import TrainMemory

MEMORY_FILE, ENTRY = "memory.safetensors", "memory"
_NEAREST, _SOURCE = "nearest", "made_from"


class StoredMemory(NamedTuple):
    """The content of the file.

    Attributes:
        digest: SHA-256 of the file, which the run's manifest states.
    """

    trained: TrainMemory
    made_from: str
    digest: str


def write_memory(files: Workdir, trained: TrainMemory, made_from: str) -> StoredMemory:
    """Writes the memory of a run.

    Raises:
        UserError: the run has a checkpoint that was trained with another one.
    """
    content = memory_bytes(trained, made_from)
    _check(files, content)
    write_bytes_atomic(files.path / MEMORY_FILE, content)
    return StoredMemory(trained, made_from, hashlib.sha256(content).hexdigest())


def memory_bytes(trained: TrainMemory, made_from: str) -> bytes:
    """The content of the file."""
    arrays = trained.memory._asdict() | {_NEAREST: trained.nearest}
    arrays = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
    return safetensors.numpy.save(arrays, {_SOURCE: made_from})


def read_memory(files: Workdir) -> StoredMemory | None:
    """The memory of a run; None where the file is missing.

    Raises:
        UserError: it is damaged, or the run has a checkpoint that was trained with another one.
    """
    path = files.path / MEMORY_FILE
    if not path.exists():
        return None
    content = path.read_bytes()
    _check(files, content)
    try:
        arrays = safetensors.numpy.load(content)
        memory = Memory(*(arrays[name] for name in Memory._fields))
        size = int.from_bytes(content[:8], "little")
        made_from = json.loads(content[8 : 8 + size])["__metadata__"][_SOURCE]
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error!r}): restore it from a copy, or delete it and run "
            "`promptmad train` again, which makes it anew"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    return StoredMemory(TrainMemory(memory, arrays[_NEAREST]), made_from, digest)


def _check(files: Workdir, content: bytes) -> None:
    """Compares the file's content with the manifest, which states that of a run's checkpoints."""
    digest, manifest = hashlib.sha256(content).hexdigest(), files.read_manifest() or {}
    if newest_step(files) is not None and manifest.get(ENTRY, digest) != digest:
        raise UserError(
            f"{files.path / MEMORY_FILE} would not be the memory that the run was made with: "
            "restore it from a copy, or start a new run in another --workdir"
        )
