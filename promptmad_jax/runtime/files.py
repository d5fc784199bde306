"""Atomic writes and crash-safe appending, on a disk or in an object store (`gs://`)."""

import errno
import os
import pathlib
import shutil
import time

from etils import epath

REWRITE_SECONDS = 10.0


def is_local(path: epath.PathLike) -> bool:
    """Returns True if `path` is on a file system of this machine, not in an object store."""
    return "://" not in os.fspath(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """Returns the absolute path; an address such as `gs://bucket/run` is absolute.

    `epath.Path.resolve` would take `gs://bucket` for a folder below the current one, and raises
    RuntimeError at a link to itself.
    """
    return epath.Path(os.path.realpath(path)) if is_local(path) else epath.Path(path)


def check_room(folder: epath.PathLike, size: int) -> None:
    """Raises OSError if the disk of a local folder, which may be missing, has no room for `size`
    bytes."""
    path = pathlib.Path(absolute(folder))
    place = next(parent for parent in (path, *path.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < size:
        needed = f"{size / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free"
        raise OSError(errno.ENOSPC, needed, os.fspath(place))


def write_text_atomic(path: epath.PathLike, text: str) -> None:
    """Writes `text` in UTF-8; see `write_bytes_atomic`."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_bytes_atomic(path: epath.PathLike, data: bytes) -> None:
    """Writes `data` to `path` as a whole: neither readers nor crashes see a part of it.

    On a local disk the data go to a sibling file, which is synced and renamed. In an object store
    every write is atomic.
    """
    target = epath.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not is_local(target):
        target.write_bytes(data)
        return
    # Several machines, whose processes may have the same number, can share a disk.
    temporary = pathlib.Path(f"{os.fspath(target)}.{os.uname().nodename}-{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


class Appender:
    """Appends to a file; keeps what a full disk refuses, and writes it once there is space.

    On a local disk the data are written at once. An object store cannot append, so there the file
    is rewritten every `REWRITE_SECONDS`, and by `flush`.
    """

    def __init__(self, path: epath.PathLike, content: bytes = b""):
        """Creates or replaces `path` with `content`."""
        self._path = epath.Path(path)
        write_bytes_atomic(self._path, content)
        self._local = is_local(self._path)
        self._written = b"" if self._local else content
        self._pending = b""
        self._next_time = time.monotonic() + REWRITE_SECONDS

    def append(self, data: bytes) -> None:
        """Appends `data`, whole or, for now, not at all.

        Raises:
          OSError: nothing can be written now. The data are kept, and a later call writes them.
        """
        self._pending += data
        if self._local or time.monotonic() >= self._next_time:
            self.flush()

    def flush(self) -> None:
        """Writes what is still pending; raises as `append`."""
        if not self._pending:
            return
        if self._local:
            _append(os.fspath(self._path), self._pending)
        else:
            self._path.write_bytes(self._written + self._pending)
            self._written += self._pending
        self._pending = b""
        self._next_time = time.monotonic() + REWRITE_SECONDS


def _append(path: str, data: bytes) -> None:
    # Unbuffered, so that nothing is written later, when the file is closed.
    with open(path, "ab", buffering=0) as file:
        size, rest = file.tell(), memoryview(data)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(size)
            raise
