"""How fast the real training step is, with its batches cut from arrays as in a run."""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import ml_dtypes
import numpy as np

from promptmad_jax.benchmarking.compilations import Compilations
from promptmad_jax.benchmarking.measure import Bench
from promptmad_jax.benchmarking.random_detector import Subject
from promptmad_jax.benchmarking.rows import Row, timed_row
from promptmad_jax.benchmarking.synthesis import synthesis
from promptmad_jax.benchmarking.timing import Timing
from promptmad_jax.data.pipeline import BatchOrder, TrainArrays, make_source
from promptmad_jax.data.pseudo_anomaly import PseudoAnomalyConfig
from promptmad_jax.losses.objective import LossConfig
from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.runtime.cpu.dispatch import FIRST_CALLS, Calls
from promptmad_jax.training.optimizer import OptimizerConfig, make_optimizer, make_schedule
from promptmad_jax.training.state import TrainState, state_shapes
from promptmad_jax.training.step import Metrics, StepFunction, make_train_step

_IMAGES = 64
# Of a run and of an epoch; what comes of the learning rate does not matter.
_STEPS = (1_000_000, 1000)
# MVTec-AD's, whose caches the rows give the size of.
_MVTEC_IMAGES = 3629


@dataclass(frozen=True)
class Training:
    """The settings of a run that its speed depends on; see the classes of the configuration."""

    optimizer: OptimizerConfig
    loss: LossConfig
    pseudo_anomaly: PseudoAnomalyConfig
    resident: str
    fine_dtype: str


class Trainer:
    """Makes one step after the other on its `state`."""

    def __init__(
        self,
        function: StepFunction,
        frozen: Any,
        state: TrainState,
        batches: Iterator[Any],
    ):
        self.function = function
        self.state = state
        self._frozen, self._batches = frozen, batches

    def __call__(self) -> Metrics:
        self.state, metrics = self.function(*self.arguments())
        return metrics

    def arguments(self) -> tuple[TrainState, Any, Any]:
        """What the step function is given next; takes a batch."""
        return self.state, self._frozen, next(self._batches)


def training(
    subject: Subject, settings: Training, batch_size: int, steps: int, bench: Bench
) -> Iterator[Row]:
    """Training steps with their batches; then the synthesis alone, for its share of a step.

    Args:
        steps: how many; 0 leaves it to the budget. `drift` is the median of the last tenth over
            that of the first.
    """
    arrays = made_up_arrays(subject, settings.fine_dtype)
    trainer = make_trainer(subject, settings, batch_size, arrays)
    row, timing = time_training(trainer, subject.mesh.size, batch_size, steps, bench)
    cache = _cache_bytes(arrays) / len(arrays.images) * _MVTEC_IMAGES
    yield row | subject.fields() | {"cache_mib": cache / 2**20}
    for row in synthesis(subject, settings.pseudo_anomaly, batch_size, bench):
        yield row | {
            "case": "training_synthesis",
            "share_of_step": row["median_s"] / timing.median,
        }


def time_training(
    trainer: Trainer, devices: int, batch_size: int, steps: int, bench: Bench
) -> tuple[Row, Timing]:
    """The row of a training step, and its times; see `training`."""
    program = bench.compile(devices, trainer.function, *trainer.arguments())
    calls = Calls()
    for _ in range(FIRST_CALLS):
        calls.made(jax.block_until_ready(trainer()))
    with Compilations() as later:
        timing = _time_steps(trainer, steps) if steps else bench.time("training", trainer)
    row = timed_row("training", batch_size, timing) | program.fields(batch_size, timing, bench.roof)
    row |= {"compilations_later": later.count, "drift": _drift(timing.seconds)}
    return row, timing


def made_up_arrays(subject: Subject, fine_dtype: str) -> TrainArrays:
    """What training reads, of a few images, in host memory."""
    images, ids = subject.images(_IMAGES)
    shapes = jax.eval_shape(subject.detector.features, subject.frozen, images)
    rng = np.random.default_rng(1)
    dtype = np.dtype(ml_dtypes.bfloat16 if fine_dtype == "bfloat16" else np.float32)
    draw = lambda leaf: rng.standard_normal(leaf.shape, np.float32)
    # A model that reads no fine levels has none here either.
    fine = jax.tree.map(lambda leaf: draw(leaf).astype(dtype), (shapes.stride8, shapes.stride4))
    return TrainArrays(images, images[::-1].copy(), ids, Features(draw(shapes.neck), *fine))


def made_up_state(subject: Subject, config: OptimizerConfig) -> TrainState:
    """A state before the first step; its arrays are its own, for a training step donates them."""
    tx = make_optimizer(config, make_schedule(config, *_STEPS))
    shapes = state_shapes(subject.detector.network, tx, subject.mesh)
    zeros = lambda tree: jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)
    state = TrainState(
        zeros(shapes.step), *subject.state, zeros(shapes.opt_state), jax.random.key(0)
    )
    shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    return jax.device_put(state, shardings, may_alias=False)


def make_trainer(
    subject: Subject, settings: Training, batch_size: int, arrays: TrainArrays
) -> Trainer:
    """The training of a run, at its start."""
    state = made_up_state(subject, settings.optimizer)
    schedule = make_schedule(settings.optimizer, *_STEPS)
    function = make_train_step(
        subject.detector,
        make_optimizer(settings.optimizer, schedule),
        schedule,
        settings.pseudo_anomaly,
        settings.loss,
        subject.mesh,
        jax.tree.map(lambda leaf: leaf.sharding, state),
    )
    order = BatchOrder(0, arrays.class_ids, batch_size, len(arrays.textures))
    source = make_source(arrays, subject.mesh, settings.resident)
    return Trainer(function, subject.frozen, state, map(source, map(order, itertools.count())))


def _time_steps(step: Callable[[], Any], count: int) -> Timing:
    """Every step on its own."""
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        jax.block_until_ready(step())
        seconds.append(time.perf_counter() - begin)
    return Timing(tuple(seconds))


def _drift(seconds: tuple[float, ...]) -> float:
    tenth = math.ceil(len(seconds) / 10)
    return float(np.median(seconds[-tenth:]) / np.median(seconds[:tenth]))


def _cache_bytes(arrays: TrainArrays) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(arrays.features))
