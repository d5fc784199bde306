"""Timings of whole processes, from their start to their exit."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from promptmad_jax.benchmarking.machine import peak_rss_mib
from promptmad_jax.benchmarking.rows import Row, timed_row

_CACHE = "JAX_COMPILATION_CACHE_DIR"
_POLL_SECONDS = 0.02


# Seconds and peak MiB of a process.
_Run = tuple[float, float | None]


def import_package(repeats: int) -> Iterator[Row]:
    """Times `import promptmad_jax` in a new interpreter, whose own start is `interpreter_s`."""
    bare, loading = (
        [_run(["-c", code]) for _ in range(repeats)] for code in ("pass", "import promptmad_jax")
    )
    interpreter = float(np.median([seconds for seconds, _ in bare]))
    yield _row("import", None, loading) | {"interpreter_s": interpreter}


def predict(workdir: Path, image: Path, class_name: str, repeats: int) -> Iterator[Row]:
    """Times `predict` on one image, first with an empty compilation cache, then with a full one.

    Raises:
        RuntimeError: it failed.
    """
    command = ["-m", "promptmad_jax.predict", f"--workdir={workdir}", f"--class_name={class_name}"]
    command += [f"--output={workdir / 'output'}", str(image)]
    with tempfile.TemporaryDirectory(prefix="promptmad-cache-") as cache:
        cold = [_run(command, cache)]
        kept = sum(file.stat().st_size for file in Path(cache).iterdir()) / 2**20
        warm = [_run(command, cache) for _ in range(repeats)]
    for case, runs in (("predict_cold", cold), ("predict_warm", warm)):
        yield _row(case, 1, runs) | {"compilation_cache_mib": kept}


def _row(case: str, batch_size: int | None, runs: Sequence[_Run]) -> Row:
    seconds, peaks = zip(*runs, strict=True)
    peak = max((peak for peak in peaks if peak is not None), default=None)
    return timed_row(case, batch_size, np.array(seconds)) | {"peak_rss_mib": peak}


def _run(arguments: Sequence[str], cache: str = "") -> _Run:
    environment = os.environ | ({_CACHE: cache} if cache else {})
    command, peaks, ended = [sys.executable, *arguments], [None], threading.Event()
    with tempfile.TemporaryFile("w+") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)

        # The system drops a process's peak when it ends.
        def poll():
            while not ended.wait(_POLL_SECONDS):
                peaks.append(peak_rss_mib(process.pid) or peaks[-1])

        poller = threading.Thread(target=poll, daemon=True)
        poller.start()
        status = process.wait()
        seconds = time.perf_counter() - begin
        ended.set()
        poller.join()
        if status:
            output.seek(0)
            raise RuntimeError(f"{' '.join(arguments)} failed:\n{output.read()}")
    return seconds, peaks[-1]
