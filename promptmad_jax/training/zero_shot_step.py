"""Training step of zero-shot detectors."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from promptmad_jax.data.defect_types.images import DefectTypeExamples
from promptmad_jax.data.defect_types.mosaic import mosaic
from promptmad_jax.losses.defect_types import DefectTypeLossConfig, defect_type_objective
from promptmad_jax.models.functional import Params, Stats
from promptmad_jax.models.zero_shot.detector import FrozenClip, ZeroShotDetector
from promptmad_jax.models.zero_shot.prompts import PromptTokens
from promptmad_jax.runtime.mesh import batch_sharding
from promptmad_jax.training.optimizer import Optimizer
from promptmad_jax.training.update import StepFunction, Stream, make_update


class FrozenZeroShot(NamedTuple):
    """The arrays that training does not change.

    Attributes:
        clip: both towers.
        text: token ids of the defect types' words, or their states [K + 1, d] if no text is
            trained.
    """

    clip: FrozenClip
    text: PromptTokens | jax.Array


def make_zero_shot_step(
    detector: ZeroShotDetector,
    optimizer: Optimizer,
    loss_config: DefectTypeLossConfig,
    mosaic_probability: float,
    mesh: Mesh,
    state_shardings: Any,
) -> StepFunction:
    """Returns the jitted step; see `make_update`. `frozen` is a `FrozenZeroShot`.

    The batch is a `DefectTypeExamples` with images, or with features of the frozen image tower.
    """

    # Each device encodes a part of the prompts, not all of them.
    spread = batch_sharding(mesh) if mesh.size > 1 else None

    def augment(batch: DefectTypeExamples, key: jax.Array):
        if batch.images is None:
            return batch.states, batch.type_masks, batch.labels
        key = jax.random.fold_in(key, Stream.MOSAIC)
        return mosaic(key, batch.images, batch.type_masks, batch.labels, mosaic_probability)

    def loss(params: Params, stats: Stats, frozen: FrozenZeroShot, examples, key: jax.Array):
        images, type_masks, labels = examples
        outputs = detector.train_forward(params, frozen.clip, frozen.text, images, spread)
        masks = type_masks.astype(jnp.int32)
        value, terms = defect_type_objective(outputs, masks, labels, loss_config)
        return value, (terms, stats)

    return make_update(augment, loss, optimizer, mesh, state_shardings)
