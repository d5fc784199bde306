"""Scores images as they arrive in folders."""

import contextlib
import os
import threading
import time
from pathlib import Path

import numpy as np

from promptmad_jax.data.user_files import images_below
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.interrupts import stopping_by
from promptmad_jax.runtime.paths import absolute
from promptmad_jax.serving.folder import Images, score, unique_names
from promptmad_jax.serving.prediction import Predictor
from promptmad_jax.serving.results import Options, Results, Scored, read_rows

_POLL_SECONDS = 0.3
_SETTLED_SECONDS = 1.0

_State = tuple[int, int]  # time of change and size


class Arrivals:
    """The images in folders that are complete and have not been taken yet.

    An image is complete once its time and size have stayed the same for a second. One that changes
    after it was taken is another image.

    Args:
        folders: that are watched, with the folders below them.
        done: images that an earlier watch took.
        names: of results that exist, without suffixes.
    """

    def __init__(self, folders: list[Path], done: set[str], names: set[Path]):
        self._folders, self._done, self._names = folders, done, names
        self._taken: dict[Path, _State] = {}
        self._waiting: dict[Path, tuple[_State, float]] = {}

    def take(self, now: float) -> Images:
        """The images that are complete at a time in seconds, with names for their results."""
        waiting, ready = {}, []
        for path, folder, state in self._files():
            if str(path) in self._done:
                self._done.remove(str(path))
                self._taken[path] = state
            if self._taken.get(path) == state:
                continue
            known, since = self._waiting.get(path, (None, now))
            waiting[path] = state, since if known == state else now
            if now - waiting[path][1] >= _SETTLED_SECONDS:
                ready.append((state, path, path.relative_to(folder)))
                self._taken[path] = state
        self._waiting = waiting
        return unique_names([entry[1:] for entry in sorted(ready)], self._names)

    def _files(self) -> list[tuple[Path, Path, _State]]:
        found = []
        for folder in self._folders:
            try:
                images = images_below(folder)[0]
            except UserError:
                if not folder.is_dir():
                    raise
                continue  # A folder below it was removed just now.
            for path in images:
                with contextlib.suppress(OSError):  # Removed just now.
                    entry = os.stat(path)
                    found.append((path, folder, (entry.st_mtime_ns, entry.st_size)))
        return found


def watched_folders(paths: list[str], outputs: dict[str, str]) -> list[Path]:
    """Returns the absolute folders to watch.

    Args:
        outputs: of the command, by flag.

    Raises:
        UserError: a path is no folder, or an output lies in one or around one.
    """
    folders = [Path(absolute(path)) for path in paths]
    if not folders:
        raise UserError("--watch: name the folders that images arrive in")
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--watch: {folder} is no folder")
        for flag, path in outputs.items():
            ours, theirs = (Path(os.path.realpath(p)) for p in (absolute(path), folder))
            if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
                raise UserError(f"{flag}={path} and the watched {folder} lie in each other")
    return folders


def watch(
    predictor: Predictor, folders: list[Path], class_name: str, output: Path, options: Options
) -> int:
    """Scores the images in folders and all that arrive, until a signal asks to stop.

    Results are added to those in `output`; images that are listed there are left out.

    Returns:
        The number of images scored.
    """
    results, rows = Results(output, options), read_rows(output)
    results.write(rows)
    files = [path for path in output.rglob("*") if path.suffix in (".npy", ".png")]
    names = {path.relative_to(output).with_suffix("") for path in files}
    arrivals = Arrivals(folders, {row["file"] for row in rows if "file" in row}, names)
    predictor([np.zeros((64, 64, 3), np.uint8)], class_name)  # Compiles before the first part.
    print(f"watching {', '.join(map(str, folders))}; Ctrl-C ends", flush=True)
    stop, count = threading.Event(), 0
    with stopping_by(lambda number: stop.set()):
        while not stop.wait(_POLL_SECONDS):
            images = arrivals.take(time.monotonic())
            for scored in score(predictor, images, class_name, options.reading):
                _say(scored, results.add(scored))
                count += scored.prediction is not None
                if stop.is_set():
                    break
    return count


def _say(scored: Scored, row: dict) -> None:
    if scored.prediction is not None:
        print(f"{scored.name}: {row.get('verdict', 'score')} {row['score']:.4g}", flush=True)
