"""Trains a config once for each of its `get_hyper` settings, on this machine or as a Slurm array.

    python launch/sweep.py --config=configs/quickstart.py --workdir=runs/seeds [--parallel=2]
    python launch/sweep.py --config=configs/promptmad_mvtec.py --workdir=runs/seeds --slurm
    python launch/sweep.py --config=configs/quickstart.py --workdir=runs/seeds --dry_run

`get_hyper()` of the config file gives mappings from keys to values, as {"train.seed": 3}. Each
becomes a run in a folder of its own below the workdir; the same command again goes on with what is
not done. What stands after `--` goes to every run. Call it in the checkout.
"""

import argparse
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

CHECKOUT = Path(__file__).resolve().parents[1]
USER_ERROR, REQUEUE = 2, 75
ARGUMENTS_FILE = "sweep_arguments.txt"


class Run(NamedTuple):
    """One setting: its folder, and the arguments of the training."""

    folder: Path
    arguments: list[str]


def main(argv: list[str]) -> int:
    """Runs the sweep; the status is 1 where a run failed."""
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
    """The options, and what stands after `--`."""
    own, extra = argv, []
    if "--" in argv:
        own, extra = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", required=True, help="configs/X.py[:arguments] with get_hyper")
    parser.add_argument("--workdir", required=True, help="the runs get folders below it")
    parser.add_argument(
        "--parallel", type=int, default=0, help="how many at a time; 0: one, or all"
    )
    parser.add_argument(
        "--slurm", action="store_true", help="submit launch/slurm.sbatch as an array"
    )
    parser.add_argument("--dry_run", action="store_true", help="print the commands")
    return parser.parse_args(own), extra


def load_hyper(config: str) -> list[dict[str, Any]]:
    """What `get_hyper` of a config file gives."""
    path = Path(config.partition(":")[0])
    if not path.is_file():
        fail(f"--config={config}: no such file")
    sys.path.insert(0, str(CHECKOUT))
    spec = importlib.util.spec_from_file_location("swept_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_hyper"):
        fail(f"{path} has no get_hyper(), a list of settings such as {{'train.seed': 3}}")
    settings = [dict(setting) for setting in module.get_hyper()]
    if not settings:
        fail(f"get_hyper() of {path} gives no setting")
    return settings


def make_runs(
    config: str, settings: Iterable[Mapping[str, Any]], workdir: Path, extra: list[str]
) -> list[Run]:
    """A run for each setting, its folder named by number and values."""
    runs = []
    for number, setting in enumerate(settings):
        name = f"{number:03d}" + "".join(f"_{key}={value}" for key, value in setting.items())
        folder = workdir / re.sub(r"[^\w.=+-]+", "-", name)[:100]
        overrides = [f"--config.{key}={value}" for key, value in setting.items()]
        runs.append(Run(folder, [f"--config={config}", f"--workdir={folder}", *overrides, *extra]))
    return runs


def command(run: Run) -> list[str]:
    """The command of a run."""
    return [sys.executable, "-m", "promptmad_jax.train", *run.arguments]


def train(run: Run) -> int:
    """Trains in this machine's turn, again where the run was told to stop; returns its status."""
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
    script = CHECKOUT / "launch" / "slurm.sbatch"
    call = ["sbatch", f"--array={array}", f"--export=ALL,PROMPTMAD_SWEEP={lines}", str(script)]
    print(shlex.join(call), flush=True)
    return subprocess.run(call, check=False).returncode


def fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(USER_ERROR)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
