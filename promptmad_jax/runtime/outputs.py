"""Folders and files for results: checked, held and tried before anything is computed.

A folder of results says in `.promptmad.json` which command wrote it. A command writes to a new
folder, to an empty one, and to one of its own; all others are refused by name.
"""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from etils import epath

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import is_local, write_text_atomic
from promptmad_jax.runtime.interrupts import tidied_up
from promptmad_jax.runtime.lock import locked
from promptmad_jax.runtime.paths import absolute

MARKER = ".promptmad.json"
TRAIN, EVALUATE, PREDICT, COMPARE, FIGURES = "train", "evaluate", "predict", "compare", "report"
EXPORT, EXAMPLES, DRIFT = "export", "prepare", "drift"
_STAGE = ".promptmad-stage-"
# By these files a folder of an older version, without a marker, is recognized; the first counts.
_SIGNS = (
    (TRAIN, ("checkpoints/config.json",)),
    (TRAIN, ("manifest.json", "metrics.jsonl")),
    (TRAIN, ("bank.npz",)),
    (EVALUATE, ("metrics.json", "manifest.json")),
    (PREDICT, ("scores.jsonl",)),
    (FIGURES, ("classes.tex", "parts.tex")),
)
_HOLDS = {
    TRAIN: "a training run",
    EVALUATE: "an evaluation",
    PREDICT: "predictions",
    COMPARE: "a comparison",
    EXPORT: "an exported detector",
    FIGURES: "figures",
    EXAMPLES: "example images",
    DRIFT: "a report on drift",
}
_RUN_FOLDERS = ("checkpoints", "evaluations", "profile", "report", "tensorboard")
_LOGS = (".err", ".log", ".out")  # A shell makes them before the command starts.


def kind_of(folder: epath.Path) -> str:
    """Returns the command whose results a folder holds, or ""."""
    found = (kind for kind, names in _SIGNS if all((folder / name).exists() for name in names))
    return _marker(folder).get("command", "") or next(found, "")


@contextlib.contextmanager
def claim(path: str, kind: str, flag: str, source: str = "") -> Iterator[epath.Path]:
    """Makes a folder for the results of a command if it is missing, and holds it.

    A folder that this call made is removed if nothing was put into it.

    Args:
        kind: the command, one of those above.
        flag: that gave the path, for messages.
        source: the run that the results come from, where those of other runs must stay.

    Raises:
        UserError: it holds something else, cannot be written, or another process holds it.
    """
    folder = epath.Path(absolute(path))
    _check(folder, kind, flag, source)
    made = _make(folder, flag)
    try:
        with tidied_up(), locked(folder):
            _sweep(folder)
            if not _marker(folder):
                values = {"command": kind, "source": source and absolute(source)}
                write_text_atomic(folder / MARKER, json.dumps(values) + "\n")
            yield folder
    finally:
        if made is not None:
            _remove_unused(folder, made)


def _check(folder: epath.Path, kind: str, flag: str, source: str) -> None:
    found, marker = kind_of(folder), _marker(folder)
    if found and found != kind:
        raise UserError(f"{flag}={folder} holds {_HOLDS.get(found, found)}: give another folder")
    if source and marker.get("source", "") not in ("", absolute(source)):
        raise UserError(
            f"{flag}={folder} holds results of {marker['source']}: give another folder, or delete "
            "this one"
        )
    if is_local(folder):
        check_apart(folder, flag)
        foreign = [] if found else _foreign(pathlib.Path(folder))
        if foreign:
            raise UserError(
                f"{flag}={folder} holds files that promptmad did not write, such as {foreign[0]}: "
                "give a new or empty folder"
            )


def check_apart(path: epath.PathLike, flag: str) -> None:
    """Raises UserError for a path inside one of the folders that a training run keeps."""
    path = pathlib.Path(path)
    for parent in path.parents:
        name = path.relative_to(parent).parts[0]
        if name in _RUN_FOLDERS and kind_of(epath.Path(parent)) == TRAIN:
            raise UserError(
                f"{flag}={path} lies in {parent / name}, which belongs to a training run: give "
                "another folder"
            )


def _foreign(folder: pathlib.Path) -> list[str]:
    if not folder.is_dir():
        return []
    system = ("Thumbs.db", "lost+found")
    names = (p.name for p in folder.iterdir() if p.suffix not in _LOGS and p.name not in system)
    return sorted(name for name in names if not name.startswith("."))


def _marker(folder: epath.Path) -> dict:
    try:
        values = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _make(folder: epath.Path, flag: str) -> pathlib.Path | None:
    """Makes the folder and tries to write in it; returns the topmost folder that was missing."""
    if not is_local(folder):
        return None
    path = pathlib.Path(folder)
    missing = [p for p in (path, *path.parents) if not os.path.lexists(p)]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return missing[-1] if missing else None
    except OSError as error:
        raise _unwritable(path, flag, error) from error


def _unwritable(path: pathlib.Path, flag: str, error: OSError) -> UserError:
    file = next((p for p in (path, *path.parents) if p.exists() and not p.is_dir()), None)
    if file is not None:
        return UserError(f"{flag}={path}: {file.name} is a file: give a folder")
    return UserError(
        f"{flag}={path} cannot be written ({error.strerror or error}): make room, make it "
        "writable, or give another folder"
    )


def _remove_unused(folder: epath.Path, made: pathlib.Path) -> None:
    path = pathlib.Path(folder)
    with contextlib.suppress(OSError):  # It is in use.
        if [p.name for p in path.iterdir()] == [MARKER]:
            (path / MARKER).unlink()
        path.rmdir()
        while path != made:
            path = path.parent
            path.rmdir()


def _sweep(folder: epath.Path) -> None:
    """Removes what killed processes left half-written; nobody else holds the folder."""
    if is_local(folder):
        for rest in pathlib.Path(folder).glob(f"{_STAGE}*"):
            shutil.rmtree(rest, ignore_errors=True)


@contextlib.contextmanager
def staged(folder: epath.PathLike, index: str, old: list[str]) -> Iterator[pathlib.Path]:
    """Yields a hidden folder whose files replace the results in `folder` once all are written.

    If the block raises, `folder` keeps what it had.

    Args:
        index: the file that lists the others; it disappears first and appears last.
        old: the files that the present index lists.

    Raises:
        UserError: a file that the index does not list would be replaced.
    """
    folder = pathlib.Path(folder)
    with tempfile.TemporaryDirectory(prefix=_STAGE, dir=folder, ignore_cleanup_errors=True) as name:
        stage = pathlib.Path(name)
        yield stage
        new = sorted(str(p.relative_to(stage)) for p in stage.rglob("*") if p.is_file())
        new.remove(index)
        for file in new:
            if file not in old and (folder / file).exists():
                raise UserError(f"{folder / file} was not written by promptmad: move it elsewhere")
        (folder / index).unlink(missing_ok=True)
        for file in old:
            (folder / file).unlink(missing_ok=True)
        for file in new:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(stage / file, folder / file)
        os.replace(stage / index, folder / index)


def check_file(path: str, flag: str, inputs: tuple[str, ...], overwrite: bool) -> None:
    """Checks that a result can be written to a file, before it is computed.

    Raises:
        UserError: the file exists, is one of the inputs, or its folder cannot be written.
    """
    target = pathlib.Path(absolute(path))
    if target.is_dir():
        raise UserError(f"{flag}={path} is a folder: give a file in it")
    if target.exists():
        if any(os.path.exists(other) and os.path.samefile(other, target) for other in inputs):
            raise UserError(f"{flag}={path} is the input itself: give another file")
        if not overwrite:
            raise UserError(f"{flag}={path} exists: give another file, or --overwrite")
    check_apart(target, flag)
    check_folder(str(target.parent), flag)


def check_folder(path: str, flag: str) -> None:
    """Raises UserError if nothing can be written into a folder, which may be missing."""
    folder = epath.Path(absolute(path))
    made = _make(folder, flag)
    if made is not None:
        _remove_unused(folder, made)
