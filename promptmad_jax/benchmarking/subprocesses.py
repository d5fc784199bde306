"""Runs each case in a process of its own, so that its peak memory is its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from promptmad_jax.benchmarking.rows import Row
from promptmad_jax.runtime.errors import UserError

_KILLED = (-9, 137)


def run_child(arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[Row]:
    """Runs `python -m promptmad_jax.benchmark` and yields its rows as they come.

    Raises:
        UserError: the system killed it.
        RuntimeError: it failed for another reason, which it printed on standard error.
    """
    command = [sys.executable, "-m", "promptmad_jax.benchmark", *arguments]
    environment = os.environ | environment
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout:
            if line.startswith("{"):
                yield json.loads(line)
    if process.returncode in _KILLED:
        raise UserError(
            f"the system killed {' '.join(arguments)}, probably for lack of memory: "
            "give a smaller --batch_size"
        )
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed with status {process.returncode}")
