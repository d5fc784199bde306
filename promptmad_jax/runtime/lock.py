"""A folder that one process at a time writes to.

The lock is the file `.promptmad.lock`, which names its holder. The kernel locks it (`flock`) for as
long as the holder lives, so that a killed process leaves nothing to wait for. Where the holder runs
on another machine, and in an object store, its heartbeat in the file decides.
"""

import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import platform
import shlex
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Protocol

from etils import epath

from promptmad_jax.runtime import process_exit
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import is_local

LOCK_FILE = ".promptmad.lock"
BEAT_SECONDS = 10.0
STALE_SECONDS = 90.0  # A holder that beats no longer than this is taken for dead.
_BOOT = pathlib.Path("/proc/sys/kernel/random/boot_id")


class _Store(Protocol):
    """The lock file.

    Attributes:
        exclusive: True if no other process of this machine can hold it now.
    """

    exclusive: bool

    def read(self) -> str: ...
    def write(self, text: str) -> None: ...
    def lost(self) -> bool: ...
    def remove(self) -> None: ...


class _LocalFile:
    def __init__(self, path: pathlib.Path):
        self._path = path
        while True:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.exclusive = True
            except BlockingIOError:
                raise _refusal(path, self.read()) from None
            except OSError:  # This file system has no locks.
                self.exclusive = False
            if not self.lost():
                return
            os.close(self._file)  # The holder has just removed it.

    def read(self) -> str:
        # Opened anew, since network file systems check for changes then.
        return self._path.read_text(encoding="utf-8") if self._path.exists() else ""

    def write(self, text: str) -> None:
        data = text.encode()
        os.pwrite(self._file, data, 0)
        os.ftruncate(self._file, len(data))
        os.fsync(self._file)

    def lost(self) -> bool:
        try:
            return os.stat(self._path).st_ino != os.fstat(self._file).st_ino
        except FileNotFoundError:
            return True

    def remove(self) -> None:
        if not self.lost():
            self._path.unlink()
        os.close(self._file)


class _StoredObject:
    exclusive = False

    def __init__(self, path: epath.Path):
        self._path = path

    def read(self) -> str:
        return self._path.read_text() if self._path.exists() else ""

    def write(self, text: str) -> None:
        self._path.write_text(text)

    def lost(self) -> bool:
        return not self._path.exists()

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: epath.PathLike) -> Iterator[None]:
    """Holds a folder, which must exist.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    path = epath.Path(folder) / LOCK_FILE
    try:
        store = _LocalFile(pathlib.Path(path)) if is_local(path) else _StoredObject(path)
        holder = _take(store, path)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}): make it writable, or choose "
            "another folder"
        ) from error
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(store, path, holder, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        with contextlib.suppress(OSError):
            store.remove()


def _take(store: _Store, path: epath.Path) -> dict:
    """Writes this process's name into the lock, once a former holder is known to be dead."""
    former, own = store.read(), _this_process()
    known_dead = store.exclusive and _parse(former).get("machine") == own["machine"]
    if former and not known_dead:
        _watch(store, path, former)
    store.write(json.dumps(own))
    if former and not known_dead:
        time.sleep(1)  # Another machine may take it at the same moment; the last one has it.
        if _parse(store.read()).get("token") != own["token"]:
            raise _refusal(path, store.read())
    return own


def _watch(store: _Store, path: epath.Path, former: str) -> None:
    """Waits until a holder has not beaten for `STALE_SECONDS`.

    Raises:
        UserError: it beats, so it is alive.
    """
    print(
        f"{path}: {_name(former)} may still run; waiting up to {STALE_SECONDS:.0f} s for a sign "
        "of it",
        file=sys.stderr,
        flush=True,
    )
    deadline = time.monotonic() + STALE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(min(1.0, BEAT_SECONDS / 2))
        now = store.read()
        if not now:
            return
        if now != former:
            raise _refusal(path, now)


def _beat(store: _Store, path: epath.Path, holder: dict, ended: threading.Event) -> None:
    beats = 0
    while not ended.wait(BEAT_SECONDS):
        beats += 1
        with contextlib.suppress(OSError):
            # This process may have been suspended for longer than others wait.
            if store.lost() or _parse(store.read()).get("token", "") not in ("", holder["token"]):
                print(
                    f"error: {path} was removed or taken over: another process may write to this "
                    "folder, so this one ends",
                    file=sys.stderr,
                )
                process_exit.leave_at_once(process_exit.USER_ERROR_STATUS)
            store.write(json.dumps(holder | {"beat": beats}))


def _this_process() -> dict:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    return {
        "host": platform.node(),
        "process": os.getpid(),
        "started": now,
        "command": shlex.join(sys.argv),
        "machine": boot or f"{platform.node()}-{uuid.getnode()}",
        "token": uuid.uuid4().hex,
        "beat": 0,
    }


def _refusal(path: epath.PathLike, holder: str) -> UserError:
    path = pathlib.PurePath(path) if is_local(path) else epath.Path(path)
    return UserError(
        f"{path.parent} is in use by {_name(holder)}: wait until it ends, or choose another "
        f"folder; if that process is gone, delete {path}"
    )


def _name(holder: str) -> str:
    values = _parse(holder)
    if "process" not in values:
        return "another process"
    return f"process {values['process']} on {values['host']}, started {values['started']}"


def _parse(text: str) -> dict:
    try:
        values = json.loads(text)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
