"""Starts the processes of a run on this machine and waits for them."""

import os
import pathlib
import socket
import subprocess
import sys

from tests.compiling import xla_environment
from tests.running import compiled_programs

ROOT = pathlib.Path(__file__).parents[2]
SECONDS = 280


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(devices):
    own = {
        "JAX_PLATFORMS": "cpu",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "JAX_COMPILATION_CACHE_DIR": compiled_programs().name,
        "PYTHONPATH": str(ROOT),
    }
    return os.environ | xla_environment(devices) | own


def start(arguments, processes, devices=1, **options):
    """Starts `python ARGUMENTS`, `processes` times, each with its place among the others."""
    address = f"127.0.0.1:{free_port()}"
    started = []
    for index in range(processes):
        place = [
            f"--coordinator_address={address}",
            f"--num_processes={processes}",
            f"--process_id={index}",
        ]
        started.append(
            subprocess.Popen(
                [sys.executable, *arguments, *(place if processes > 1 else [])],
                env=environment(devices),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                **options,
            )
        )
    return started


def finish(started, seconds=SECONDS):
    """Statuses and outputs; a process that is still there after that long is killed."""
    try:
        outputs = [process.communicate(timeout=seconds)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started], outputs


def run(arguments, processes, devices=1):
    """The outputs of processes that all succeed."""
    statuses, outputs = finish(start(arguments, processes, devices))
    assert statuses == [0] * processes, "\n".join(outputs)
    return outputs
