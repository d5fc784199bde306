"""Cases in processes of their own, so that the memory of one is not counted for another."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from promptmad_jax.benchmarking.rows import Row
from promptmad_jax.runtime.errors import UserError

_KILLED = (-9, 137)


def run_child(arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[Row]:
    """Runs `python -m promptmad_jax.benchmark` with these arguments; yields its rows as they come.

    Raises:
        UserError: the system killed it.
        RuntimeError: it failed otherwise; what it had to say stands on standard error.
    """
    command = [sys.executable, "-m", "promptmad_jax.benchmark", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | dict(environment)
    ) as process:
        for line in process.stdout:
            if line.startswith("{"):
                yield json.loads(line)
    if process.returncode in _KILLED:
        raise UserError(
            f"the system killed {' '.join(arguments)}, as a rule for lack of memory: "
            "give a smaller --batch_size"
        )
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed with status {process.returncode}")
