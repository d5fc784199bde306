"""Trains a configuration with each of its `get_hyper` settings, here or as a Slurm array.

    python launch/sweep.py --config=quickstart.py --workdir=runs/seeds [--parallel=2]
    python launch/sweep.py --config=promptmad_mvtec.py --workdir=runs/seeds --slurm
    python launch/sweep.py --config=quickstart.py --workdir=runs/seeds --dry_run

`get_hyper()` of the configuration file returns mappings from keys to values: [{"train.seed": 3}].
Each becomes a run in its own folder below the workdir; the same command continues the runs that are
not complete. The arguments after `--` go to every run.
"""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from promptmad_jax.runtime.config_file import find_config, load_module
from promptmad_jax.runtime.errors import UserError

SLURM_SCRIPT = Path(__file__).resolve().with_name("slurm.sbatch")
USER_ERROR, REQUEUE = 2, 75
ARGUMENTS_FILE = "sweep_arguments.txt"


class Run(NamedTuple):
    """A run of the sweep: its folder and the arguments of `promptmad train`."""

    folder: Path
    arguments: list[str]


def main(argv: list[str]) -> int:
    """Runs the sweep; returns 1 if a run failed."""
    options, extra = parse(argv)
    runs = make_runs(options.config, load_hyper(options.config), Path(options.workdir), extra)
    if options.dry_run:
        for run in runs:
            print(shlex.join(command(run)))
        return 0
    if options.slurm:
        return submit(runs, Path(options.workdir), options.parallel)
    with ThreadPoolExecutor(options.parallel or 1) as pool:
        statuses = list(pool.map(train, runs))
    failed = [run.folder.name for run, status in zip(runs, statuses, strict=True) if status]
    print(f"{len(runs) - len(failed)} of {len(runs)} runs are complete")
    if failed:
        print(f"failed: {', '.join(failed)}; see log.txt in their folders", file=sys.stderr)
    return int(bool(failed))


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the arguments after `--`."""
    end = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", required=True, help="NAME.py[:ARGUMENTS], with get_hyper")
    parser.add_argument("--workdir", required=True, help="parent folder of the runs")
    parser.add_argument(
        "--parallel", type=int, default=0, help="runs at a time (default: 1; with --slurm, all)"
    )
    parser.add_argument(
        "--slurm", action="store_true", help="submit launch/slurm.sbatch as an array"
    )
    parser.add_argument("--dry_run", action="store_true", help="print the commands")
    return parser.parse_args(argv[:end]), argv[end + 1 :]


def load_hyper(config: str) -> list[dict[str, Any]]:
    """The settings that `get_hyper` of a configuration file returns."""
    path = find_config(config.partition(":")[0])
    get_hyper = getattr(load_module(path), "get_hyper", list)
    settings = [dict(setting) for setting in get_hyper()]
    if not settings:
        raise UserError(
            f"{path} has no get_hyper() that returns settings such as [{{'train.seed': 3}}]"
        )
    return settings


def make_runs(
    config: str, settings: Iterable[Mapping[str, Any]], workdir: Path, extra: list[str]
) -> list[Run]:
    """One run per setting, in a folder named by its number and values."""
    runs = []
    for number, setting in enumerate(settings):
        name = f"{number:03d}" + "".join(f"_{key}={value}" for key, value in setting.items())
        folder = workdir / re.sub(r"[^\w.=+-]+", "-", name)[:100]
        overrides = [f"--config.{key}={value}" for key, value in setting.items()]
        runs.append(Run(folder, [f"--config={config}", f"--workdir={folder}", *overrides, *extra]))
    return runs


def command(run: Run) -> list[str]:
    """The command that trains a run."""
    return [sys.executable, "-m", "promptmad_jax.train", *run.arguments]


def train(run: Run) -> int:
    """Trains on this machine, again after a preemption; returns the exit status."""
    run.folder.mkdir(parents=True, exist_ok=True)
    print(f"{run.folder.name}: begins", flush=True)
    while True:
        with open(run.folder / "log.txt", "a") as log:
            done = subprocess.run(command(run), stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode != REQUEUE:
            break
    print(f"{run.folder.name}: status {done.returncode}", flush=True)
    return done.returncode


def submit(runs: list[Run], workdir: Path, parallel: int) -> int:
    """Submits the runs as a job array, at most `parallel` at a time; returns sbatch's status."""
    workdir.mkdir(parents=True, exist_ok=True)
    lines = (workdir / ARGUMENTS_FILE).resolve()
    lines.write_text("".join(f"{shlex.join(run.arguments)}\n" for run in runs))
    array = f"0-{len(runs) - 1}" + (f"%{parallel}" if parallel else "")
    export = f"--export=ALL,PROMPTMAD_SWEEP={lines}"
    call = ["sbatch", f"--array={array}", export, str(SLURM_SCRIPT)]
    print(shlex.join(call), flush=True)
    return subprocess.run(call, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
