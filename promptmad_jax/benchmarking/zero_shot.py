"""How fast zero-shot detectors are, at inference and in training."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import ml_dtypes
import numpy as np

from promptmad_jax.benchmarking.compilations import Compilations
from promptmad_jax.benchmarking.measure import Bench
from promptmad_jax.benchmarking.rows import Row, timed_row
from promptmad_jax.benchmarking.training import Trainer, time_training
from promptmad_jax.data.defect_types.images import DefectTypeExamples, take_examples
from promptmad_jax.data.pipeline import BatchOrder, make_source
from promptmad_jax.evaluation.zero_shot_inference import ZeroShotMapMaker
from promptmad_jax.methods.zero_shot.assembly import ZeroShotExperiment
from promptmad_jax.models.functional import Params
from promptmad_jax.runtime.mesh import batch_sharding, replicated
from promptmad_jax.training.optimizer import make_optimizer, make_schedule
from promptmad_jax.training.state import TrainState, create_state
from promptmad_jax.training.zero_shot_step import make_zero_shot_step

# To train on; what the image tower gives of them may be kept, 22 MB an image at 518 px.
_IMAGES = 16
_STEPS = (1_000_000, 1000)


@dataclass(frozen=True)
class ZeroShotSubject:
    """What is measured: an experiment, and the words of its K defect types."""

    experiment: ZeroShotExperiment
    words: tuple[str, ...]

    @cached_property
    def params(self) -> Params:
        """What is trained, as drawn."""
        whole = replicated(self.experiment.mesh)
        init = lambda key: self.experiment.network.init(key)[0]
        return jax.jit(init, out_shardings=whole)(jax.random.key(0))

    @cached_property
    def states(self) -> jax.Array:
        """[K + 1, d]."""
        return self.experiment.maker.states(self.params, self.experiment.tokens(self.words))

    def images(self, count: int) -> np.ndarray:
        """uint8 [count, S, S, 3]."""
        size = self.experiment.config.dapo.image_size
        return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)

    def fields(self) -> dict[str, Any]:
        """What the rows say of it."""
        config = self.experiment.config
        return {
            "model": config.name,
            "clip": config.clip.weights,
            "image_size": config.dapo.image_size,
            "dtype": config.dapo.dtype,
            "types": len(self.words),
            "devices": self.experiment.mesh.size,
        }


def host_to_host(subject: ZeroShotSubject, batch_size: int, bench: Bench) -> Iterator[Row]:
    """Images in host memory to maps and scores of all states there, with the states at hand."""
    experiment = subject.experiment
    maker = ZeroShotMapMaker(experiment.detector, experiment.frozen, experiment.mesh, batch_size)
    images, own = subject.images(maker.batch_size), np.ones(len(subject.words) + 1, bool)
    params, states = subject.params, subject.states
    call = lambda: list(maker.batches(params, states, own, images))
    with Compilations() as compilations:
        call()
    timing = bench.time("inference", call)
    row = timed_row("inference", maker.batch_size, timing) | subject.fields()
    yield row | {"compile_s": compilations.seconds}


def on_device(subject: ZeroShotSubject, batch_size: int, bench: Bench) -> Iterator[Row]:
    """The same with images and maps on the devices."""
    experiment = subject.experiment
    mesh = experiment.mesh
    batch_size = -(-batch_size // mesh.size) * mesh.size
    whole, split = replicated(mesh), batch_sharding(mesh)
    maps = jax.jit(
        experiment.detector.maps, in_shardings=(None,) * 3 + (split,), out_shardings=whole
    )
    images = jax.device_put(subject.images(batch_size), split)
    arguments = (subject.params, experiment.frozen, subject.states, images)
    program = bench.compile(mesh.size, maps, *arguments)
    timing = bench.time("inference_device", lambda: maps(*arguments))
    row = timed_row("inference_device", batch_size, timing) | subject.fields()
    yield row | program.fields(batch_size, timing, bench.roof)


def text_states(subject: ZeroShotSubject, bench: Bench) -> Iterator[Row]:
    """The states of all types, made once for a trained model and kept."""
    experiment = subject.experiment
    tokens = experiment.tokens(subject.words)
    call = lambda: experiment.maker.states(subject.params, tokens)
    with Compilations() as compilations:
        jax.block_until_ready(call())
    row = timed_row("states", None, bench.time("states", call)) | subject.fields()
    yield row | {"compile_s": compilations.seconds}


def training(subject: ZeroShotSubject, batch_size: int, steps: int, bench: Bench) -> Iterator[Row]:
    """Training steps with their batches; see `benchmarking.training.training`."""
    experiment = subject.experiment
    config = experiment.config
    schedule = make_schedule(config.optimizer, *_STEPS)
    tx = make_optimizer(config.optimizer, schedule)
    state, shardings = create_state(experiment.network, tx, 0, experiment.mesh)
    function = make_zero_shot_step(
        experiment.detector,
        tx,
        schedule,
        config.type_loss,
        config.source.mosaic,
        experiment.mesh,
        shardings,
    )
    frozen = experiment.frozen_inputs(subject.words)
    order = BatchOrder(0, np.zeros(_IMAGES, np.int32), batch_size, 1)
    source = make_source(
        _examples(subject, state), experiment.mesh, config.train.resident, take_examples
    )
    trainer = Trainer(function, frozen, state, map(source, map(order, itertools.count())))
    row, _ = time_training(trainer, experiment.mesh.size, batch_size, steps, bench)
    yield row | subject.fields()


def _examples(subject: ZeroShotSubject, state: TrainState) -> DefectTypeExamples:
    """A few made-up images, or what the image tower would give of them where that is cached."""
    experiment = subject.experiment
    config, images, states = experiment.config, subject.images(_IMAGES), None
    rng = np.random.default_rng(1)
    if experiment.caches:
        shapes = jax.eval_shape(
            experiment.detector.image_states, state.params, experiment.frozen, images
        )
        dtype = ml_dtypes.bfloat16 if config.train.fine_dtype == "bfloat16" else np.float32
        draw = lambda leaf: rng.standard_normal(leaf.shape, np.float32).astype(dtype)
        images, states = None, jax.tree.map(draw, shapes)
    size = config.dapo.image_size
    masks = rng.integers(0, len(subject.words) + 1, (_IMAGES, size, size), np.uint8)
    return DefectTypeExamples(images, states, masks, masks.any((1, 2)))
