"""Stops a small training by Ctrl-C at every moment, and starts two in one folder in every order.

    python tests/faults/stop_many.py [--what=ctrl_c|two] [--times=10] [--steps=45] [--workdir=DIR]

`ctrl_c`: one run is stopped while it imports, reads data, caches features, compiles, trains, saves,
evaluates and reports, and started again each time. Every stop must end with status 130 and one
sentence, and lose no step that was done. `two`: a second training in the folder of a first must
leave with status 2 and one sentence, and after the first was killed take its place. Both end as an
undisturbed run, to the bit. Prints a line each; the exit status is 1 if anything was otherwise.
"""

import argparse
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import kill_many

PATIENCE_SECONDS = 300
ORDERS = ("at once", "while it compiles", "while it saves", "first killed", "killed in a save")


class Run:
    """One start of the command, with what it prints."""

    def __init__(self, training):
        self.training, self.began = training, time.monotonic()
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            training._command, env=kill_many.environment(), stdout=self.log, stderr=self.log
        )

    def output(self):
        self.log.seek(0)
        return self.log.read()

    def until(self, condition):
        """Polls; False if the process ends first."""
        while not condition(self):
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < self.began + PATIENCE_SECONDS, "nothing happens"
            time.sleep(0.002)
        return True

    def end(self, number=None):
        """Sends a signal, if any, and returns status and seconds until the end."""
        begin = time.monotonic()
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE_SECONDS), time.monotonic() - begin


def after(seconds):
    return lambda run: time.monotonic() > run.began + seconds


def found(pattern):
    """A path below the root of all runs, in which {} is the run."""
    there = lambda folder: any(folder.parent.glob(pattern.format(folder.name)))
    return lambda run: there(run.training.workdir)


def said(text):
    return lambda run: text in run.output()


MOMENTS = {
    "import": after(0.5),
    "import of jax": after(1.5),
    "data": found("data/resized/*/.building-*"),
    "feature cache": found("data/feature_cache/*.partial-*"),
    "compile": said("compiling the training step"),
    "step": lambda run: run.training.step() >= 8,
    "save": found("{}/checkpoints/*.orbax-checkpoint-tmp"),
    "evaluation on the way": found("{}/checkpoints/21"),
    "evaluation": said("\nevaluating"),
    "results": found("{}/metrics.json"),
    "report": found("{}/report/*tmp"),
}


def ctrl_c(options, root, expected):
    """Yields a record of each moment."""
    for name in ("resized", "feature_cache"):
        shutil.rmtree(root / "data" / name, ignore_errors=True)
    training = kill_many.Training(options, root, "ctrl_c")
    for moment, condition in MOMENTS.items():
        before, run = training.step(), Run(training)
        came = run.until(condition)
        status, seconds = run.end(signal.SIGINT)
        output = run.output()
        saved = max(kill_many.saved_steps(training.workdir), default=0)
        lost = max(training.step(), before) - saved
        sentences = output.count("Ctrl-C")
        yield {
            "moment": moment if came else f"{moment} (it ended first)",
            "status": status,
            "seconds": round(seconds, 1),
            "lost_steps": lost,
            "said": output.strip().splitlines()[-1:],
            "good": (status == 130 or (not came and status == 0))
            and "Traceback" not in output
            and sentences <= 2
            and lost <= 1,
        }
    assert Run(training).end()[0] == 0
    yield {"end": "as undisturbed", "good": kill_many.fingerprint(training) == expected}


def two(options, root, expected):
    """Yields a record of each pair."""
    for number, order in zip(range(options.times), itertools.cycle(ORDERS), strict=False):
        training = kill_many.Training(options, root, f"two_{number}")
        first = Run(training)
        if order == "while it compiles":
            first.until(said("compiling the training step"))
        if "save" in order:
            first.until(found("{}/checkpoints/*.orbax-checkpoint-tmp"))
        if order == "first killed":
            first.until(lambda run: run.training.step() >= 12)
        if "kill" in order:
            first.end(signal.SIGKILL)
        runs = [first, Run(training)][order.startswith(("first", "killed")) :]
        statuses = sorted(run.end()[0] for run in runs)
        refused = [run.output() for run in runs if run.process.returncode == 2]
        rows = [json.loads(row) for row in (training.workdir / "metrics.jsonl").open()]
        steps = [row["step"] for row in rows if row["kind"] == "train"]
        yield {
            "order": order,
            "statuses": statuses,
            "refused": [text.strip().splitlines()[-1][:120] for text in refused],
            "good": statuses == [0, 2][: len(runs)]
            and all(text.count("\n") == 1 and "is in use by process" in text for text in refused)
            and len(steps) == len(set(steps))
            and kill_many.fingerprint(training) == expected,
        }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--what", default="ctrl_c", choices=("ctrl_c", "two"))
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--steps", type=int, default=45)
    parser.add_argument("--workdir", default="")
    options = parser.parse_args()
    options.processes, options.model = 1, "promptmad"
    root = pathlib.Path(options.workdir or tempfile.mkdtemp(prefix="stop_many-")).resolve()
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "data").exists():
        kill_many.prepare(root / "data")
    _, expected = kill_many.undisturbed(options, root, "stop")
    good = True
    for record in {"ctrl_c": ctrl_c, "two": two}[options.what](options, root, expected):
        print(json.dumps(record), flush=True)
        good &= record["good"]
    sys.exit(not good)


if __name__ == "__main__":
    os.chdir(kill_many.ROOT)
    main()
