"""The training step of a configuration on shapes alone: to lower, compile and count, not to run.

No weights are read and nothing is computed, so the mesh may be of devices that are not there.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from promptmad_jax.config import Config
from promptmad_jax.data.pipeline import TrainBatch
from promptmad_jax.methods.reconstruction.assembly import make_detector
from promptmad_jax.models.backbone.backbone import build_backbone, parameter_shapes
from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.layers.attention import Text
from promptmad_jax.models.reconstruction.detector import Detector, Frozen
from promptmad_jax.runtime.mesh import partition_rules
from promptmad_jax.training.optimizer import make_optimizer, make_schedule
from promptmad_jax.training.state import TrainState, state_shapes
from promptmad_jax.training.step import StepFunction, make_train_step

# The text of MVTec-AD's classes, which decides nothing: a thousandth of the backbone's size.
CLASSES, STATES = 15, 9


@dataclass(frozen=True)
class AbstractRun:
    """A training step and the shapes of what it is called with.

    Attributes:
        state: with shardings. frozen, batch: `jax.ShapeDtypeStruct`s of the global arrays.
        step: the jitted step, as training calls it.
    """

    detector: Detector
    state: TrainState
    frozen: Frozen
    batch: TrainBatch
    step: StepFunction

    def trace(self) -> Any:
        """`jax.stages.Traced`; lower it for the platforms of an abstract mesh, compile it else."""
        return self.step.trace(self.state, self.frozen, self.batch)


def abstract_run(
    config: Config, mesh: Mesh | AbstractMesh, platform: str, text_width: int
) -> AbstractRun:
    """The step that `config` trains with on `mesh`.

    Args:
        platform: of the mesh's devices, "cpu", "cuda" or "tpu".
        text_width: width d of the text tokens; not read for a model without text.
    """
    shape = jax.ShapeDtypeStruct
    backbone = build_backbone(config.backbone)
    text = None
    if config.model == "promptmad":
        text = Text(
            shape((CLASSES, STATES, text_width), jnp.float32), shape((CLASSES, STATES), bool)
        )
    detector = make_detector(config, backbone, text)
    frozen = Frozen(parameter_shapes(backbone), text)
    # Neither the number of steps nor that of an epoch's is part of the program's shape.
    schedule = make_schedule(config.optimizer, 1000, 1000)
    tx = make_optimizer(config.optimizer, schedule)
    state = state_shapes(detector.network, tx, mesh, partition_rules(config.mesh))
    step = make_train_step(
        detector,
        tx,
        schedule,
        _settled(config, platform),
        config.loss,
        mesh,
        jax.tree.map(lambda leaf: leaf.sharding, state),
    )
    return AbstractRun(detector, state, frozen, _batch(config, detector, frozen), step)


def _settled(config: Config, platform: str):
    """The pseudo-anomalies' settings, as they would be chosen where the platform is at hand."""
    if config.pseudo_anomaly.batching != "auto":
        return config.pseudo_anomaly
    batching = "map" if platform == "cpu" else "vmap"
    return dataclasses.replace(config.pseudo_anomaly, batching=batching)


def _batch(config: Config, detector: Detector, frozen: Frozen) -> TrainBatch:
    size, count = detector.image_size, config.train.batch_size
    images = jax.ShapeDtypeStruct((count, size, size, 3), jnp.uint8)
    ids = jax.ShapeDtypeStruct((count,), jnp.int32)
    features = cached_features(config, detector, frozen, count)
    return TrainBatch(ids, images, images, ids, features, features.neck)


def cached_features(config: Config, detector: Detector, frozen: Frozen, count: int) -> Features:
    """Shapes of the features of `count` clean images, as they are cached."""
    size = detector.image_size
    images = jax.ShapeDtypeStruct((count, size, size, 3), jnp.uint8)
    shapes = jax.eval_shape(detector.features, frozen, images)
    fine = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(config.train.fine_dtype)),
        (shapes.stride8, shapes.stride4),
    )
    return Features(jax.ShapeDtypeStruct(shapes.neck.shape, jnp.float32), *fine)
