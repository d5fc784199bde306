"""Runs one command in a forked process, and says what is wrong with what it did."""

import dataclasses
import hashlib
import importlib
import json
import os
import pathlib
import re
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import Any

STATUSES = (0, 2)
_TEMPORARY = r"\S*(\.preparing-|\.unpacked-|incomplete\.)\S*"
_PRELOADED = (
    *("flax.nnx", "jax.experimental.multihost_utils", "optax", "PIL.Image", "scipy.ndimage"),
    *("tensorflow_datasets", "ml_collections.config_flags", "promptmad_jax.commands.predict"),
    *("promptmad_jax.methods.reconstruction.method", "promptmad_jax.data.builders"),
    *("array_record.python.array_record_data_source", "promptmad_jax.data.prepared"),
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result of a command: exit status (None after a timeout), its outputs as text, seconds."""

    status: int | None
    out: str
    err: str
    seconds: float


def preload() -> None:
    """Imports what the commands import, so that each forked one starts at once; starts nothing."""
    for name in _PRELOADED:
        importlib.import_module(name)


def apart(function: Callable[[], Any]) -> Any:
    """Returns a JSON value that `function` computes in a forked process.

    Reading records starts threads, after which this process could not fork any more.
    """
    with tempfile.TemporaryFile("w+") as file:
        child = os.fork()
        if child == 0:
            json.dump(function(), file)
            file.flush()
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise RuntimeError(f"{function} failed")
        file.seek(0)
        return json.load(file)


def run(argv: list[str], folder: pathlib.Path, timeout: float) -> Outcome:
    """Runs `promptmad ARGV` in `folder`; nothing of JAX has started in this process before."""
    logs = [folder.parent / "stdout", folder.parent / "stderr"]
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_command(argv, folder, logs)
    status = None
    while time.monotonic() - began < timeout:
        done, code = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(code)
            break
        time.sleep(0.01)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    texts = [log.read_text(errors="replace") for log in logs]
    return Outcome(status, *texts, time.monotonic() - began)


def _be_command(argv: list[str], folder: pathlib.Path, logs: list[pathlib.Path]) -> None:
    """Becomes the command; never returns."""
    status = 1
    try:
        for descriptor, log in enumerate(logs, start=1):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        os.chdir(folder)
        sys.argv = [argv[0], *argv[1:]]
        runpy.run_module(f"promptmad_jax.{argv[0]}", run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def snapshot(folder: pathlib.Path, without: pathlib.Path) -> dict[str, str]:
    """Path to kind and content of everything below `folder` but `without`."""
    found = {}
    for base, folders, files in os.walk(os.fsencode(folder)):
        if os.path.realpath(base) == os.path.realpath(os.fsencode(without)):
            folders.clear()
            continue
        for name in folders + files:
            path = os.path.join(base, name)
            found[os.fsdecode(path)] = _digest(path)
    return found


def _digest(path: bytes) -> str:
    if os.path.islink(path):
        return f"link {os.readlink(path)!r}"
    if os.path.isdir(path):
        return "folder"
    if not os.path.isfile(path):
        return "special"
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def faults(
    outcome: Outcome, before: dict[str, str], after: dict[str, str], output: pathlib.Path
) -> list[str]:
    """Everything wrong with a run, in words; nothing if it behaved well."""
    if outcome.status is None:
        return [f"no end after {outcome.seconds:.0f} s"]
    found = []
    if "Traceback (most recent call last)" in outcome.err:
        last = [line for line in outcome.err.splitlines() if line.strip()][-1]
        found.append(f"traceback: {last[:200]}")
    elif outcome.status not in STATUSES:
        found.append(f"status {outcome.status}")
    errors = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    if match := re.search(
        r"\S*(\.preparing-|\.unpacked-|incomplete\.)\S*", outcome.out + outcome.err
    ):
        found.append(f"names a temporary file: {match[0]}")
    if (outcome.status == 2) != (len(errors) == 1):
        found.append(f"status {outcome.status} with {len(errors)} lines of error")
    changed = sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))
    changed = [path for path in changed if path != os.fspath(output)]
    if changed:
        found.append(f"changed outside the output: {changed[0]!r} and {len(changed) - 1} more")
    if outcome.status == 2 and output.is_dir() and _left(output):
        found.append(f"refused, but {_left(output)[0]} is in the output")
    return found


def _left(output: pathlib.Path) -> list[str]:
    """Files in the output of a refused command, but for caches."""
    files = (p.relative_to(output) for p in output.rglob("*") if p.is_file())
    return sorted(str(p) for p in files if p.parts[0] not in ("resized", "feature_cache"))
