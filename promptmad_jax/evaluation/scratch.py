"""Memory-mapped arrays in a temporary folder, for what does not fit into memory together."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from promptmad_jax.runtime.errors import UserError

Keep = Callable[[np.ndarray], np.ndarray]


class Scratch:
    """A temporary folder of arrays, removed when the object is closed or deleted.

    Raises:
      UserError: the folder cannot be made.
    """

    def __init__(self):
        try:
            self._folder = tempfile.TemporaryDirectory(
                prefix="promptmad-", ignore_cleanup_errors=True
            )
        except OSError as error:
            raise UserError(
                f"{tempfile.gettempdir()}: no folder for temporary files can be made "
                f"there ({error.strerror}); make room there, or set TMPDIR"
            ) from error
        self._count = 0

    def keep(self, array: np.ndarray) -> np.ndarray:
        """Writes an array and returns it memory-mapped and read-only.

        Raises:
          UserError: the disk is full or refuses the write.
        """
        path = Path(self._folder.name) / f"{self._count}.raw"
        self._count += 1
        # Without a header, which numpy would parse as Python: CPython 3.11 may fail at that when
        # several threads do it at once.
        try:
            path.write_bytes(np.ascontiguousarray(array).data)
        except OSError as error:
            raise UserError(
                f"{path}: {array.nbytes / 2**20:.0f} MiB of maps cannot be written "
                f"({error.strerror}); make room there, or set TMPDIR"
            ) from error
        # A zero-length file cannot be mapped.
        return np.memmap(path, array.dtype, "r", shape=array.shape) if array.size else array

    def close(self) -> None:
        """Removes the folder and all its arrays."""
        self._folder.cleanup()
