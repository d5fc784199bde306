"""Trains the quickstart on several topologies and compares their losses and metrics.

    python tools/measure_topologies.py DATA OUTPUT [--steps=50] [--topologies=1x1,1x8,2x2,4x1]

DATA holds the quickstart's data (`promptmad_jax.prepare --dataset=synthetic_mvtec`). A topology is
processes x devices of each, on this machine's CPU. Runs that are complete are not repeated. Prints
a Markdown table: the relative difference of the loss from that of the first topology, and the
largest difference of a metric.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from promptmad_jax.runtime.metrics_log import read_metrics

CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--topologies", default="1x1,1x8,2x2,4x1")
    parser.add_argument("--config", default="quickstart.py")
    options = parser.parse_args()
    names = options.topologies.split(",")
    runs = {name: train(name, options) for name in names}
    reference = runs[names[0]]
    steps = sorted({1, min(10, options.steps), options.steps})
    print(f"| processes x devices | {' | '.join(f'step {s}' for s in steps)} | largest | metrics |")
    print("|---|" + "---|" * (len(steps) + 2))
    for name in names[1:]:
        print_row(name, runs[name], reference, steps)


def train(name: str, options: argparse.Namespace) -> tuple[dict[int, float], dict[str, float]]:
    """Loss of every step, and the metrics, of a topology."""
    workdir = options.output_dir / name
    if not (workdir / "metrics.json").exists():
        processes, devices = name.split("x")
        command = [
            "bash",
            str(CHECKOUT / "launch" / "local_multiprocess.sh"),
            processes,
            f"--devices_per_process={devices}",
            "--",
            f"--config={options.config}",
            f"--workdir={workdir}",
            f"--config.data.data_dir={options.data_dir}",
            f"--config.train.steps={options.steps}",
            "--config.train.log_every=1",
        ]
        environment = os.environ | {"PROMPTMAD_PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"}
        subprocess.run(command, cwd=CHECKOUT, env=environment, check=True, stdout=sys.stderr)
    rows = read_metrics(workdir / "metrics.jsonl")
    losses = {row["step"]: row["loss"] for row in rows if row["kind"] == "train"}
    return losses, json.loads((workdir / "metrics.json").read_text())["mean"]


def print_row(name, run, reference, steps) -> None:
    (losses, means), (expected, expected_means) = run, reference
    relative = {step: abs(losses[step] / expected[step] - 1) for step in expected}
    figures = [f"{relative[step]:.1e}" for step in steps] + [f"{max(relative.values()):.1e}"]
    metrics = max(abs(means[key] - value) for key, value in expected_means.items())
    print(f"| {name} | {' | '.join(figures)} | {metrics:.1e} |")


if __name__ == "__main__":
    main()
