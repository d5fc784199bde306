"""Text files that are either the old version or the new one, never half of each."""

import os
import pathlib

from etils import epath


def write_text_atomic(path: epath.PathLike, text: str) -> None:
    """Writes `text` to `path` so that a reader or a crash never meets a part of it.

    On a local disk the text goes to a sibling file, is synced and renamed. An object store (`gs://`)
    makes a whole object visible at once by itself.
    """
    target = epath.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not is_local(target):
        target.write_text(text)
        return
    temporary = pathlib.Path(f"{os.fspath(target)}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def is_local(path: epath.PathLike) -> bool:
    """Whether `path` is on a file system of this machine rather than in an object store."""
    return "://" not in os.fspath(path)
