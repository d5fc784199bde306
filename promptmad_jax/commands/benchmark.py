"""From flags and a configuration to cases, each measured in a process of its own."""

import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from promptmad_jax.benchmarking import inference, metrics, startup, zero_shot
from promptmad_jax.benchmarking.cost import Roof
from promptmad_jax.benchmarking.machine import describe_device, peak_device_mib, peak_rss_mib
from promptmad_jax.benchmarking.measure import Bench
from promptmad_jax.benchmarking.peak import measure_roof
from promptmad_jax.benchmarking.plan import Point, Selection, plan
from promptmad_jax.benchmarking.random_detector import Subject
from promptmad_jax.benchmarking.random_run import write_run
from promptmad_jax.benchmarking.rows import Row, rounded
from promptmad_jax.benchmarking.subprocesses import run_child
from promptmad_jax.benchmarking.synthesis import synthesis
from promptmad_jax.benchmarking.synthetic_maps import MVTEC_AD
from promptmad_jax.benchmarking.table import print_table
from promptmad_jax.benchmarking.timing import Budget
from promptmad_jax.benchmarking.training import Training, training
from promptmad_jax.clip.config import PUBLISHED
from promptmad_jax.config import ZERO_SHOT, Config
from promptmad_jax.data.defect_types.taxonomy import find_taxonomy
from promptmad_jax.methods.reconstruction.assembly import Experiment, build_experiment
from promptmad_jax.methods.zero_shot.assembly import build_zero_shot
from promptmad_jax.models.zero_shot.loading import random_detector
from promptmad_jax.prompts.embeddings import TextTokens
from promptmad_jax.runtime.cpu.dispatch import compute_in_this_thread
from promptmad_jax.runtime.errors import UserError

_MAP_SIZE = 224
_MOST_REPEATS = 5  # Of what takes seconds.
# CLIP ViT-B/32's width, and the states of MVTec-AD's class that has most of them.
_TEXT_WIDTH, _TEXT_TOKENS = 512, 9
_NO_CACHE = {"JAX_ENABLE_COMPILATION_CACHE": "false"}


@dataclass(frozen=True)
class Request:
    """The flags; see `benchmark`."""

    selection: Selection
    config: Config | None
    classes: int
    weights: str
    budget: Budget
    steps: int
    roof: Roof
    profile: str


def run_benchmark(request: Request) -> None:
    """Runs every case in a child process; prints its rows as they come, and the table."""
    rows = []
    for row in _rows(request):
        print(json.dumps(row), flush=True)
        rows.append(row)
    print_table(rows)


def _rows(request: Request) -> Iterator[Row]:
    roofs: dict[Point, tuple[str, ...]] = {}
    for case in plan(request.selection):
        if case.has_roof and not request.roof.gflops and case.point not in roofs:
            measured = list(_child("roof", case.point))
            yield from measured
            roofs[case.point] = tuple(flag for row in measured for flag in _roof_flags(row))
        arguments = (f"--batch_size={case.batch_size}", *roofs.get(case.point, ()))
        yield from _child(case.name, case.point, arguments)


def _roof_flags(row: Row) -> tuple[str, ...]:
    return f"--peak_gflops={row['gflop_per_s']}", f"--peak_gbytes={row['gbyte_per_s']}"


def _child(case: str, point: Point, arguments: tuple[str, ...] = ()) -> Iterator[Row]:
    # What is compiled here is to be timed, not fetched; but starting up lives on the cache.
    cache = {} if case == "predict" else _NO_CACHE
    everything = (*sys.argv[1:], f"--child={case}", *arguments, *point.arguments)
    return run_child(everything, cache | dict(point.environment))


def run_case(case: str, request: Request) -> None:
    """Measures one case in this process and prints its rows."""
    for row in _measure(case, request):
        there = {
            "device": describe_device(),
            "peak_rss_mib": peak_rss_mib(),
            "peak_device_mib": peak_device_mib(),
        }
        print(json.dumps(rounded(there | row)), flush=True)


def _measure(case: str, request: Request) -> Iterator[Row]:
    budget = request.budget
    repeats = min(budget.samples, _MOST_REPEATS)
    match case:
        case "metrics":
            return metrics.engine(MVTEC_AD, _MAP_SIZE, repeats)
        case "metrics_pooled":
            return metrics.evaluator(MVTEC_AD, _MAP_SIZE)
        case "metrics_scikit_learn":
            return metrics.scikit_learn(MVTEC_AD, _MAP_SIZE)
        case "metrics_outlier":
            return metrics.outlier(MVTEC_AD, _MAP_SIZE)
        case "import":
            return startup.import_package(budget.samples)
        case "roof":
            return measure_roof(_dtype(request.config), budget)
        case "predict":
            return _predict(request, repeats)
    if case == "training":
        compute_in_this_thread()  # As in a run.
    bench = Bench(budget, request.roof, request.profile)
    if request.selection.zero_shot:
        return _measure_zero_shot(case, request, bench)
    return _measure_model(case, request, bench)


def _dtype(config: Config) -> str:
    return config.dapo.dtype if config.model == ZERO_SHOT else config.backbone.dtype


def _measure_zero_shot(case: str, request: Request, bench: Bench) -> Iterator[Row]:
    subject = made_up_zero_shot(request.config, request.weights)
    (batch_size,) = request.selection.batch_sizes
    match case:
        case "inference":
            return zero_shot.host_to_host(subject, batch_size, bench)
        case "inference_device":
            return zero_shot.on_device(subject, batch_size, bench)
        case "states":
            return zero_shot.text_states(subject, bench)
        case "training":
            return zero_shot.training(subject, batch_size, request.steps, bench)
    raise ValueError(f"no case {case!r}")


def _measure_model(case: str, request: Request, bench: Bench) -> Iterator[Row]:
    config, (batch_size,) = request.config, request.selection.batch_sizes
    subject = subject_of(made_up_experiment(config, request.classes, request.weights))
    match case:
        case "inference":
            return inference.host_to_host(subject, batch_size, bench)
        case "inference_device":
            return inference.on_device(subject, batch_size, bench)
        case "stages":
            return inference.stages(subject, batch_size, bench)
        case "bank":
            return inference.make_bank(subject, batch_size, bench)
        case "synthesis":
            return synthesis(subject, config.pseudo_anomaly, batch_size, bench)
        case "training":
            return training(subject, training_settings(config), batch_size, request.steps, bench)
    raise ValueError(f"no case {case!r}")


def _predict(request: Request, repeats: int) -> Iterator[Row]:
    experiment = made_up_experiment(request.config, request.classes, request.weights)
    with tempfile.TemporaryDirectory(prefix="promptmad-run-") as folder:
        image = write_run(experiment, subject_of(experiment), Path(folder))
        yield from startup.predict(Path(folder), image, experiment.class_names[0], repeats)


def made_up_experiment(config: Config, classes: int, weights: str) -> Experiment:
    """The parts of a run with so many classes of no meaning.

    Args:
        weights: the backbone's: "random", or "config" for those of the configuration.
    """
    if weights == "random":
        backbone = dataclasses.replace(config.backbone, weights="random")
        config = dataclasses.replace(config, backbone=backbone)
    names = tuple(f"class_{i:04d}" for i in range(classes))
    return build_experiment(config, names, _text(config, classes))


def made_up_zero_shot(config: Config, weights: str) -> zero_shot.ZeroShotSubject:
    """A zero-shot detector with the defect types of its target.

    Args:
        weights: CLIP's: "random", in the shape of the configured model, or "config".
    """
    loaded = None
    if weights == "random" and config.clip.weights != "random":
        if config.clip.weights not in PUBLISHED:
            raise UserError(
                f"clip.weights={config.clip.weights}: the shape of this CLIP is not known; give "
                f"--weights=config, or one of {', '.join(PUBLISHED)}"
            )
        loaded = random_detector(config.dapo, PUBLISHED[config.clip.weights], config.clip.seed)
    taxonomy = find_taxonomy(config.data.dataset, config.data.taxonomy, ())
    return zero_shot.ZeroShotSubject(build_zero_shot(config, loaded), taxonomy.words)


def subject_of(experiment: Experiment) -> Subject:
    """The parts of the experiment that are measured."""
    return Subject(
        experiment.config.model,
        experiment.detector,
        experiment.frozen,
        experiment.mesh,
        len(experiment.class_names),
    )


def training_settings(config: Config) -> Training:
    """The settings that the speed of training depends on."""
    return Training(
        config.optimizer,
        config.loss,
        config.pseudo_anomaly,
        config.train.resident,
        config.train.fine_dtype,
    )


def _text(config: Config, classes: int) -> TextTokens | None:
    """Made-up text tokens, for they cost the same whatever they say."""
    if config.model != "promptmad":
        return None
    shape = (classes, _TEXT_TOKENS, _TEXT_WIDTH)
    tokens = np.random.default_rng(0).standard_normal(shape, np.float32)
    states = ("normal", *(f"defect_{i}" for i in range(1, _TEXT_TOKENS)))
    return TextTokens(tokens, np.ones(shape[:2], bool), (states,) * classes, ("generic",) * classes)
