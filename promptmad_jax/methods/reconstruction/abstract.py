"""A configuration's programs on shapes alone: to lower, compile and count, not to run.

No weights are read and nothing is computed, so the mesh may be of devices that are not there.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from promptmad_jax.clip.config import PUBLISHED, read_config
from promptmad_jax.config import Config, for_platform
from promptmad_jax.data.pipeline import TrainArrays, TrainBatch, trace_cut
from promptmad_jax.methods.reconstruction.assembly import has_text, make_detector
from promptmad_jax.methods.subject import divisible
from promptmad_jax.models.backbone.backbone import build_backbone
from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.layers.attention import Text
from promptmad_jax.models.reconstruction.detector import Detector, Frozen
from promptmad_jax.models.reconstruction.memory import memory_shapes
from promptmad_jax.prompts.config import TextConfig
from promptmad_jax.prompts.phrase_vectors import read_vectors
from promptmad_jax.runtime.mesh import (
    batch_sharding,
    partition_rules,
    placed_shapes,
    replicated,
)
from promptmad_jax.training.optimizer import make_optimizer
from promptmad_jax.training.reconstruction_step import Clean, make_train_step
from promptmad_jax.training.state import TrainState, state_shapes
from promptmad_jax.training.update import StepFunction
from promptmad_jax.weights.hub import resolve_file

# The text of MVTec-AD's classes, which decides nothing: a thousandth of the backbone's size.
CLASSES, STATES = 15, 9


@dataclass(frozen=True)
class AbstractReconstruction:
    """See `AbstractTraining`; `step` is the jitted step, as training calls it."""

    config: Config
    mesh: Mesh | AbstractMesh
    detector: Detector
    state: TrainState
    frozen: Frozen
    batch: TrainBatch
    step: StepFunction

    def trace(self) -> jax.stages.Traced:
        """The training step."""
        return self.step.trace(self.state, self.frozen, self.batch)

    def trace_batch(self, count: int) -> jax.stages.Traced:
        """The cut of a batch from `count` resident images."""
        batch = self.batch
        rows = lambda tree: jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype), tree
        )
        cached = _cached(self.config, self.detector, self.frozen, count)
        arrays = TrainArrays(*rows((batch.images, batch.textures, batch.class_ids)), cached)
        return trace_cut(arrays, len(batch.class_ids), self.mesh)

    def trace_inference(self) -> jax.stages.Traced:
        """Maps of a batch of `eval.batch_size` images, as evaluation and prediction make them."""
        size, shape = self.detector.image_size, jax.ShapeDtypeStruct
        whole, split = replicated(self.mesh), batch_sharding(self.mesh)
        place = functools.partial(placed_shapes, sharding=whole)
        weights = place((self.state.params, self.state.stats)), place(self.frozen)
        prompts = shape((CLASSES, size, size, 3), jnp.uint8)
        bank = place(jax.eval_shape(self.detector.bank, *weights[0], weights[1], prompts))
        count = divisible(self.config.eval.batch_size, self.mesh)
        images, ids = shape((count, size, size, 3), jnp.uint8), shape((count,), jnp.int32)
        maps = jax.jit(
            self.detector.described_maps,
            in_shardings=(None,) * 4 + (split,) * 3,
            out_shardings=whole,
        )
        return maps.trace(*weights[0], weights[1], bank, images, ids, ids)


def abstract_training(
    config: Config, mesh: Mesh | AbstractMesh, platform: str
) -> AbstractReconstruction:
    """The step that `config` trains with on `mesh`, of devices "cpu", "cuda" or "tpu"."""
    shape, config = jax.ShapeDtypeStruct, for_platform(config, platform)
    backbone = build_backbone(config.backbone)
    text = None
    if has_text(config):
        width = text_width(config.text)
        text = Text(shape((CLASSES, STATES, width), jnp.float32), shape((CLASSES, STATES), bool))
    detector = make_detector(config, backbone, text, platform)
    memory = None
    if detector.memory is not None:
        memory = memory_shapes(detector.memory, CLASSES, backbone)
    moments = None
    if config.reconstructor.standardize:
        moments = shape((2, sum(backbone.channels)), jnp.float32)
    frozen = Frozen(backbone.parameter_shapes(), text, memory, moments)
    # The schedule's length is not part of the program's shape.
    optimizer = make_optimizer(config.optimizer, 1000, 1000)
    state = state_shapes(detector.network, optimizer.tx, mesh, partition_rules(config.mesh))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    step = make_train_step(detector, optimizer, config.pseudo_anomaly, config.loss, mesh, shardings)
    batch = _batch(config, detector, frozen)
    return AbstractReconstruction(config, mesh, detector, state, frozen, batch, step)


def text_width(text: TextConfig) -> int:
    """Width of the text tokens; reads no weights."""
    if text.source == "random":
        return text.width
    if text.source == "vectors":
        return read_vectors(Path(text.weights).expanduser(), ()).shape[-1]
    if text.weights in PUBLISHED:
        return PUBLISHED[text.weights].text.width
    tower = read_config(resolve_file(text.weights, "config.json", setting="text.weights")).text
    return tower.projection or tower.width


def _batch(config: Config, detector: Detector, frozen: Frozen) -> TrainBatch:
    size, count = detector.image_size, config.train.batch_size
    images = jax.ShapeDtypeStruct((count, size, size, 3), jnp.uint8)
    ids = jax.ShapeDtypeStruct((count,), jnp.int32)
    clean = _cached(config, detector, frozen, count)
    return TrainBatch(ids, images, images, ids, clean, clean.features.neck)


def _cached(config: Config, detector: Detector, frozen: Frozen, count: int) -> Clean:
    """Shapes of what is cached of `count` clean images."""
    size = detector.image_size
    images = jax.ShapeDtypeStruct((count, size, size, 3), jnp.uint8)
    shapes = jax.eval_shape(detector.features, frozen, images)
    fine = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(config.train.fine_dtype)),
        shapes[1:],
    )
    features = Features(jax.ShapeDtypeStruct(shapes.neck.shape, jnp.float32), *fine)
    nearest = None
    if features.patches is not None:
        nearest = jax.ShapeDtypeStruct(features.patches.shape[:3], jnp.int32)
    return Clean(features, nearest)
