"""Gives the commands bent inputs drawn from a seed, and judges what they do.

    python -m tools.fuzz --seed=7 --cases=1000

Every case writes inputs, bends them in one to three ways, runs a command in a forked process, and
fails if that ends in a traceback, in more than one line of error, in no end at all, or with a file
changed outside its output, part of a result left by a refused command, or an image that was neither
read nor named. Prints each failing case with its number; `--only=N` repeats one, keeps its files.
"""

import argparse
import pathlib
import shutil
import sys
import tempfile
from collections import Counter

from tools.fuzz import cases, judge


def main() -> int:
    """Runs the cases; returns 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for a command")
    parser.add_argument("--only", type=int, help="run this case alone and keep its files")
    parser.add_argument("--kinds", default=",".join(cases.KINDS), help="comma-separated")
    options = parser.parse_args()
    judge.preload()
    numbers = range(options.cases) if options.only is None else [options.only]
    with tempfile.TemporaryDirectory(prefix="promptmad-fuzz-") as home:
        run = pathlib.Path(home) / "trained" / "run"
        if cases.NEED_RUN & set(options.kinds.split(",")):
            make_run(run.parent)
        kinds = Counter()
        for number in numbers:
            faults = run_case(options, number, run)
            kinds.update(fault.partition(":")[0] for fault in faults)
    failed = ", ".join(f"{kind}: {count}" for kind, count in kinds.items()) or "no fault"
    print(f"{len(numbers)} cases, seed {options.seed}: {failed}")
    return int(bool(kinds))


def make_run(home: pathlib.Path) -> None:
    """Makes a tiny run for the commands that need one: `home`/run."""
    cases.small_tree(home / "parts")
    source, data = f"--source={home / 'parts'}", f"--data_dir={home / 'data'}"
    _expect(["prepare", "--dataset=anomaly_folder", source, data], home)
    config = ["--config=promptmad_folder.py:smoke", f"--config.data.data_dir={home / 'data'}"]
    _expect(["train", *config, f"--workdir={home / 'run'}", "--config.train.steps=0"], home)


def _expect(argv: list[str], home: pathlib.Path) -> None:
    outcome = judge.run(argv, home, 600)
    if outcome.status != 0:
        raise SystemExit(f"{' '.join(argv)} failed:\n{outcome.out}{outcome.err}")


def run_case(options: argparse.Namespace, number: int, run: pathlib.Path) -> list[str]:
    """Runs and judges a case; prints and returns its faults."""
    home = pathlib.Path(tempfile.mkdtemp(prefix=f"promptmad-fuzz-{number}-"))
    case = cases.draw(options.seed, number, home, run, options.kinds.split(","))
    before = judge.snapshot(case.folder, case.output)
    outcome = judge.run(case.argv, case.folder, options.timeout)
    after = judge.snapshot(case.folder, case.output)
    found = judge.faults(outcome, before, after, case.output)
    if outcome.status == 0:
        lost = judge.apart(lambda: cases.lost(case, outcome.out + outcome.err))
        found += [f"silent loss: {name}" for name in lost]
    if found:
        print(f"case {number}: {' '.join(case.argv)}\n  bent: {', '.join(case.ways)}")
        print("".join(f"  {fault}\n" for fault in found), end="", flush=True)
    if options.only is None:
        shutil.rmtree(home)
    else:
        print(f"{outcome.out}{outcome.err}status {outcome.status}; files in {home}")
    return found


if __name__ == "__main__":
    sys.exit(main())
