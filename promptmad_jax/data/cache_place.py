"""The place of caches: beside the data, or in the user's folder if the data cannot be written."""

import errno
import functools
import hashlib
import os
import pathlib
import sys
import tempfile

_REFUSALS = (errno.EROFS, errno.EACCES, errno.EPERM)


def cache_path(folder: str | os.PathLike, name: str) -> pathlib.Path:
    """The path of a cache below `folder`, if it is there or can be made there; else one below
    `~/.cache/promptmad_jax`, which is said on the terminal."""
    path = pathlib.Path(folder, name)
    if path.exists() or can_write(pathlib.Path(folder)):
        return path
    return _fallback(os.path.abspath(folder)) / name


def can_write(folder: pathlib.Path) -> bool:
    """Returns False if the folder may not be written; other faults are those of the writer."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        return error.errno not in _REFUSALS


@functools.cache
def _fallback(folder: str) -> pathlib.Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    digest = hashlib.sha256(folder.encode()).hexdigest()[:12]
    own = pathlib.Path(home, "promptmad_jax", "data", f"{pathlib.Path(folder).name}-{digest}")
    own.mkdir(parents=True, exist_ok=True)
    print(
        f"{folder} cannot be written: its caches are kept in {own}; "
        "--config.data.cache_dir=FOLDER chooses another place",
        file=sys.stderr,
        flush=True,
    )
    return own
