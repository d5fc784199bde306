"""Forks a process per command from one that has imported what the commands import.

Reads a JSON line per command and answers with its exit status. See `running.run`.
"""

import importlib
import json
import os
import runpy
import sys

# No command's own module: those define flags. JAX must not look for devices before a fork.
_IMPORTED = (
    "flax.nnx",
    "ml_collections.config_flags",
    "optax",
    "orbax.checkpoint",
    "promptmad_jax.commands.evaluate",
    "promptmad_jax.commands.predict",
    "promptmad_jax.commands.train",
    "promptmad_jax.methods.reconstruction.method",
    "promptmad_jax.methods.zero_shot.method",
    "promptmad_jax.reporting.report",
    "sklearn.metrics",
    "tensorboardX",
)


def main() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            return _become(request)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(request) -> None:
    """Runs the command in this process, as `python -m` would."""
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
        os.dup2(file, stream)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environ"])
    sys.argv = [request["module"], *request["arguments"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
