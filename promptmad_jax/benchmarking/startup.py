"""How long a command takes from the start of its process."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from promptmad_jax.benchmarking.machine import peak_rss_mib
from promptmad_jax.benchmarking.rows import Row, timed_row
from promptmad_jax.benchmarking.timing import Timing

_CACHE = "JAX_COMPILATION_CACHE_DIR"
_LOOK_SECONDS = 0.02


class _Process(NamedTuple):
    """How long a process took, and the most memory it held."""

    seconds: float
    peak_rss_mib: float | None


def import_package(repeats: int) -> Iterator[Row]:
    """`import promptmad_jax` in a new interpreter, whose own start is `interpreter_s`."""
    bare = [_run(["-c", "pass"]) for _ in range(repeats)]
    loading = [_run(["-c", "import promptmad_jax"]) for _ in range(repeats)]
    yield _row("import", None, loading) | {"interpreter_s": _timing(bare).median}


def predict(workdir: Path, image: Path, class_name: str, repeats: int) -> Iterator[Row]:
    """`predict` on one image, map and overlay written: once with an empty compilation cache, then
    with what that left there.

    Raises:
        RuntimeError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="promptmad-cache-") as cache:
        command = [
            "-m",
            "promptmad_jax.predict",
            f"--workdir={workdir}",
            f"--class_name={class_name}",
            f"--output={workdir / 'output'}",
            str(image),
        ]
        cold = _run(command, cache)
        kept = sum(file.stat().st_size for file in Path(cache).iterdir())
        warm = [_run(command, cache) for _ in range(repeats)]
    for case, runs in (("predict_cold", [cold]), ("predict_warm", warm)):
        yield _row(case, 1, runs) | {"compilation_cache_mib": kept / 2**20}


def _row(case: str, batch_size: int | None, runs: Sequence[_Process]) -> Row:
    row = timed_row(case, batch_size, _timing(runs))
    peaks = [run.peak_rss_mib for run in runs if run.peak_rss_mib is not None]
    return row | {"peak_rss_mib": max(peaks, default=None)}


def _timing(runs: Sequence[_Process]) -> Timing:
    return Timing(tuple(run.seconds for run in runs))


def _run(arguments: Sequence[str], cache: str = "") -> _Process:
    environment = os.environ | ({_CACHE: cache} if cache else {})
    begin = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            [sys.executable, *arguments], env=environment, stdout=said, stderr=said
        ) as process,
    ):
        watch = _Watch(process.pid)
        status = process.wait()
        seconds = time.perf_counter() - begin
        peak = watch.stop()
        if status:
            said.seek(0)
            raise RuntimeError(f"{' '.join(arguments)} failed:\n{said.read()}")
    return _Process(seconds, peak)


class _Watch:
    """Looks at a process's memory until it ends: the peak that the system keeps goes with it."""

    def __init__(self, process: int):
        self._process, self._peak, self._done = process, None, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> float | None:
        self._done.set()
        self._thread.join()
        return self._peak

    def _look(self) -> None:
        while not self._done.wait(_LOOK_SECONDS):
            peak = peak_rss_mib(self._process)
            self._peak = self._peak if peak is None else peak
