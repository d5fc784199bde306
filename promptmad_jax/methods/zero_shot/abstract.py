"""A zero-shot configuration's programs on shapes alone; see `reconstruction/abstract.py`."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from promptmad_jax.clip.config import PUBLISHED
from promptmad_jax.clip.text import ClipText
from promptmad_jax.clip.transformer import graph_and_shapes
from promptmad_jax.clip.vision import ClipVision
from promptmad_jax.config import Config, for_platform
from promptmad_jax.data.defect_types.images import DefectTypeExamples, take_examples
from promptmad_jax.data.pipeline import trace_cut
from promptmad_jax.evaluation.zero_shot_inference import zero_shot_maps
from promptmad_jax.methods.subject import divisible
from promptmad_jax.models.zero_shot.detector import FrozenClip, TrainableParts, ZeroShotDetector
from promptmad_jax.models.zero_shot.parameters import TableMoments
from promptmad_jax.models.zero_shot.prompts import PromptTokens
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.mesh import partition_rules, placed_shapes, replicated
from promptmad_jax.training.optimizer import make_optimizer
from promptmad_jax.training.state import TrainState, state_shapes
from promptmad_jax.training.update import StepFunction
from promptmad_jax.training.zero_shot_step import FrozenZeroShot, make_zero_shot_step

# About what MVTec-AD has of the defect types, and tokens of a prompt.
TYPES, TOKENS = 20, 24


@dataclass(frozen=True)
class AbstractZeroShot:
    """See `AbstractTraining`."""

    config: Config
    mesh: Mesh | AbstractMesh
    detector: ZeroShotDetector
    state: TrainState
    frozen: FrozenZeroShot
    batch: DefectTypeExamples
    step: StepFunction

    def trace(self) -> jax.stages.Traced:
        """The training step."""
        return self.step.trace(self.state, self.frozen, self.batch)

    def trace_batch(self, count: int) -> jax.stages.Traced:
        """The cut of a batch from `count` resident images."""
        rows = lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype)
        examples = jax.tree.map(rows, self.batch)
        return trace_cut(examples, len(self.batch.labels), self.mesh, take_examples)

    def trace_inference(self) -> jax.stages.Traced:
        """Maps and scores of a batch of `eval.batch_size` images."""
        place = functools.partial(placed_shapes, sharding=replicated(self.mesh))
        count, size = divisible(self.config.eval.batch_size, self.mesh), self.config.dapo.image_size
        width = self.detector.clip.text.projection
        shape = jax.ShapeDtypeStruct
        maps = zero_shot_maps(self.detector, self.mesh)
        return maps.trace(
            place(self.state.params),
            place(self.frozen.clip),
            place(shape((TYPES + 1, width), jnp.float32)),
            place(shape((TYPES + 1,), jnp.bool)),
            shape((count, size, size, 3), jnp.uint8),
        )


def abstract_training(config: Config, mesh: Mesh | AbstractMesh, platform: str) -> AbstractZeroShot:
    """The programs of `config` on `mesh`, of devices "cpu", "cuda" or "tpu".

    Raises:
        UserError: the shape of its CLIP is not known without its files.
    """
    config = for_platform(config, platform)
    clip = PUBLISHED.get(config.clip.weights)
    if config.clip.weights == "random":
        clip = config.clip.random_config()
    if clip is None:
        raise UserError(
            f"clip.weights={config.clip.weights}: the shape of this CLIP is not known; set one of "
            f"{', '.join(PUBLISHED)}"
        )
    detector = ZeroShotDetector.create(config.dapo, clip, platform)
    frozen = FrozenClip(
        _tower(ClipText, clip.text, jnp.float32),
        _tower(ClipVision, clip.vision, jnp.dtype(config.dapo.dtype)),
    )
    width = clip.text.width
    moments = TableMoments(np.zeros(width, np.float32), np.ones(width, np.float32))
    network = TrainableParts(config.dapo, clip, moments)
    # The schedule's length is not part of the program's shape.
    optimizer = make_optimizer(config.optimizer, 1000, 1000)
    state = state_shapes(network, optimizer.tx, mesh, partition_rules(config.mesh))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    step = make_zero_shot_step(
        detector, optimizer, config.type_loss, config.source.mosaic, mesh, shardings
    )
    inputs = FrozenZeroShot(frozen, _text(config, clip.text.projection))
    batch = _batch(config, detector, state, frozen)
    return AbstractZeroShot(config, mesh, detector, state, inputs, batch, step)


def _tower(tower: type, config: Any, dtype: Any) -> Any:
    shapes = graph_and_shapes(tower, config)[1]
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), shapes)


def _text(config: Config, width: int) -> PromptTokens | jax.ShapeDtypeStruct:
    shape, states = jax.ShapeDtypeStruct, TYPES + 1
    if not config.dapo.learns_text:
        return shape((states, width), jnp.float32)
    return PromptTokens(shape((states, TOKENS), jnp.int32), shape((states,), jnp.int32), None)


def _batch(
    config: Config, detector: ZeroShotDetector, state: TrainState, frozen: FrozenClip
) -> DefectTypeExamples:
    shape, count, size = jax.ShapeDtypeStruct, config.train.batch_size, config.dapo.image_size
    masks, labels = shape((count, size, size), jnp.uint8), shape((count,), jnp.bool)
    images = shape((count, size, size, 3), jnp.uint8)
    if not config.train.cache_images or config.dapo.image_tokens:
        return DefectTypeExamples(images, None, masks, labels)
    states = jax.eval_shape(detector.image_states, state.params, frozen, images)
    cached = lambda x: shape(x.shape, jnp.dtype(config.train.fine_dtype))
    return DefectTypeExamples(None, jax.tree.map(cached, states), masks, labels)
