"""Runs the selected cases of `promptmad benchmark`, each in a process of its own."""

import functools
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from promptmad_jax.benchmarking import inference, metrics, startup
from promptmad_jax.benchmarking.machine import describe_device, peak_device_mib, peak_rss_mib
from promptmad_jax.benchmarking.measure import Bench
from promptmad_jax.benchmarking.peak import measure_roof
from promptmad_jax.benchmarking.plan import Selection, plan
from promptmad_jax.benchmarking.rows import Row, rounded
from promptmad_jax.benchmarking.subprocesses import run_child
from promptmad_jax.benchmarking.synthetic_maps import MVTEC_AD
from promptmad_jax.benchmarking.table import print_table
from promptmad_jax.benchmarking.training import synthesis, training
from promptmad_jax.config import Config
from promptmad_jax.methods.method import open_method
from promptmad_jax.methods.subject import divisible
from promptmad_jax.runtime.cpu.memory import compute_in_this_thread

_MAP_SIZE = 224
_MAX_SLOW_REPEATS = 5  # of cases that take seconds


@dataclass(frozen=True)
class Request:
    """The flags; see `promptmad_jax.benchmark`."""

    selection: Selection
    config: Config | None
    classes: int
    weights: str
    steps: int
    bench: Bench


def run_benchmark(request: Request) -> None:
    """Runs every case in a child process; prints its rows as they come, then a table."""
    rows = []
    for row in _rows(request):
        print(json.dumps(row), flush=True)
        rows.append(row)
    print_table(rows)


def _rows(request: Request) -> Iterator[Row]:
    roofs: dict[str, list[str]] = {}
    for case in plan(request.selection):
        if case.has_roof and not request.bench.roof.gflops and case.point not in roofs:
            (roof,) = _child("roof", case.point)
            yield roof
            peaks = f"--peak_gflops={roof['gflop_per_s']}", f"--peak_gbytes={roof['gbyte_per_s']}"
            roofs[case.point] = list(peaks)
        arguments = [f"--batch_size={case.batch_size}", *roofs.get(case.point, ())]
        yield from _child(case.name, case.point, *arguments)


def _child(case: str, point: str, *arguments: str) -> Iterator[Row]:
    # Compile times are reported, so nothing may come from the cache; but startup relies on it.
    cache = {} if case == "predict" else {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    sweep = [point] if point else []
    return run_child([*sys.argv[1:], f"--child={case}", *arguments, *sweep], cache)


def run_case(case: str, request: Request) -> None:
    """Measures a case in this process and prints its rows."""
    if request.selection.sweep == "devices":
        jax.config.update("jax_num_cpu_devices", request.config.mesh.data)
    for row in _measure(case, request):
        machine = {
            "device": describe_device(),
            "peak_rss_mib": peak_rss_mib(),
            "peak_device_mib": peak_device_mib(),
        }
        print(json.dumps(rounded(machine | row)), flush=True)


def _measure(case: str, request: Request) -> Iterator[Row]:
    budget = request.bench.budget
    repeats = min(budget.samples, _MAX_SLOW_REPEATS)
    match case:
        case "metrics":
            return metrics.per_class(MVTEC_AD, _MAP_SIZE, repeats)
        case "metrics_pooled":
            return metrics.whole_evaluation(MVTEC_AD, _MAP_SIZE)
        case "import":
            return startup.import_package(budget.samples)
    method = open_method(request.config)
    if case == "roof":
        dtype = functools.reduce(getattr, method.dtype_setting.split("."), request.config)
        return measure_roof(dtype, budget)
    if case == "training":
        compute_in_this_thread()  # as in a run
    subject = method.benchmark_subject(request.weights, request.classes)
    if case == "predict":
        return _predict(subject, repeats)
    return _measure_subject(case, request, subject)


def _measure_subject(case: str, request: Request, subject: Any) -> Iterator[Row]:
    (batch_size,) = request.selection.batch_sizes
    bench, config = request.bench, request.config
    match case:
        case "inference":
            yield from inference.time_call(case, subject, subject.host_to_host(batch_size), bench)
        case "inference_device":
            yield from inference.on_device(subject, batch_size, bench)
        case "bank" | "states":
            yield from inference.time_call(case, subject, subject.per_model(), bench)
        case "stages":
            images = divisible(batch_size, subject.mesh)
            yield from inference.stages(subject, subject.stages(images), images, bench)
        case "synthesis":
            images, _ = subject.images(batch_size)
            yield synthesis(images, config.pseudo_anomaly, bench)
        case "training":
            row = training(subject, batch_size, request.steps, bench)
            yield row
            if "synthesis" in request.selection.available:
                images, _ = subject.images(batch_size)
                yield synthesis(images, config.pseudo_anomaly, bench, row["median_s"])
        case _:
            raise ValueError(f"no case {case!r}")


def _predict(subject: Any, repeats: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="promptmad-run-") as folder:
        image, class_name = subject.write_run(Path(folder))
        yield from startup.predict(Path(folder), image, class_name, repeats)
