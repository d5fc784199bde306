"""The jitted training step of zero-shot detectors."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from promptmad_jax.data.defect_types.images import DefectTypeExamples
from promptmad_jax.data.defect_types.mosaic import mosaic
from promptmad_jax.losses.defect_types import DefectTypeLossConfig, defect_type_objective
from promptmad_jax.models.zero_shot.detector import FrozenClip, ZeroShotDetector
from promptmad_jax.models.zero_shot.prompts import PromptTokens
from promptmad_jax.runtime.mesh import batch_sharding, replicated
from promptmad_jax.training.state import TrainState
from promptmad_jax.training.step import StepFunction, Stream


class FrozenZeroShot(NamedTuple):
    """What training does not change.

    Attributes:
        clip: both towers.
        text: the trained words' token ids; or their states [K + 1, d] where no text is trained.
    """

    clip: FrozenClip
    text: PromptTokens | jax.Array


def make_zero_shot_step(
    detector: ZeroShotDetector,
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    loss: DefectTypeLossConfig,
    mosaic_probability: float,
    mesh: Mesh,
    state_shardings: Any,
) -> StepFunction:
    """Returns `(state, frozen, batch) -> (state, metrics)`, compiled once; the state is donated.

    `frozen` is a `FrozenZeroShot`, the batch `DefectTypeExamples`, with the image tower's features
    where these are cached.
    """

    def loss_fn(params, frozen: FrozenZeroShot, images, type_masks, labels):
        outputs = detector.train_forward(params, frozen.clip, frozen.text, images)
        return defect_type_objective(outputs, type_masks, labels, loss)

    def train_step(state: TrainState, frozen: FrozenZeroShot, batch: DefectTypeExamples):
        images, type_masks, labels = batch.states, batch.type_masks, batch.labels
        if images is None:
            key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), Stream.MOSAIC)
            images, type_masks, labels = mosaic(
                key, batch.images, type_masks, labels, mosaic_probability
            )
        (total, terms), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, frozen, images, type_masks.astype(jnp.int32), labels
        )
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = terms | {
            "loss": total,
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": schedule(state.step),
        }
        return TrainState(state.step + 1, params, state.stats, opt_state, state.key), metrics

    whole, split = replicated(mesh), batch_sharding(mesh)
    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(state_shardings, whole, split),
        out_shardings=(state_shardings, whole),
    )
