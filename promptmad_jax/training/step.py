"""The jitted training step."""

import enum
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from promptmad_jax.data.pipeline import TrainBatch
from promptmad_jax.data.pseudo_anomaly import PseudoAnomalyConfig, synthesize
from promptmad_jax.losses.objective import LossConfig, objective
from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.functional import batch_stats
from promptmad_jax.models.reconstruction.detector import Detector, Frozen, text_of
from promptmad_jax.models.reconstruction.pairs import interleave
from promptmad_jax.runtime.key_streams import KeyStreams
from promptmad_jax.runtime.mesh import batch_sharding, replicated
from promptmad_jax.training.state import TrainState

Metrics = dict[str, jax.Array]
StepFunction = Callable[[TrainState, Frozen, TrainBatch], tuple[TrainState, Metrics]]


class Stream(enum.IntEnum):
    """Constants folded into a step's key, one a purpose."""

    PSEUDO_ANOMALY = 1
    JITTER = 2
    DROPOUT = 3
    DIFFUSION = 4
    MOSAIC = 5


def step_rngs(key: jax.Array) -> KeyStreams:
    """The random streams of a forward pass."""
    fold = lambda stream: jax.random.fold_in(key, stream)
    return KeyStreams(
        jitter=fold(Stream.JITTER), dropout=fold(Stream.DROPOUT), diffusion=fold(Stream.DIFFUSION)
    )


def join(clean: Features, pseudo: Features) -> Features:
    """Features of the pairs; cached fine levels may be bfloat16, which promotes to float32."""
    return Features(
        *(
            None if a is None else interleave(a.astype(b.dtype), b)
            for a, b in zip(clean, pseudo, strict=True)
        )
    )


def make_train_step(
    detector: Detector,
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    pseudo_config: PseudoAnomalyConfig,
    loss_config: LossConfig,
    mesh: Mesh,
    state_shardings: Any,
) -> StepFunction:
    """Returns `(state, frozen, batch) -> (state, metrics)`, compiled once; the state is donated.

    Only the pseudo-anomalous image passes the backbone: nothing is augmented on the clean images
    and the backbone is frozen, so their features come with the batch.
    """

    # Each device pastes into its own images: as one array, a loop over them would gather them all.
    split = batch_sharding(mesh)
    paste = jax.shard_map(
        functools.partial(synthesize, config=pseudo_config),
        mesh=mesh,
        in_specs=split.spec,
        out_specs=split.spec,
        check_vma=False,
    )

    def loss_fn(params, state, frozen, batch, pseudo, masks, key):
        model = detector.network.bind(params, state.stats)
        features = join(batch.features, detector.features(frozen, pseudo))
        text = text_of(frozen.text, batch.class_ids)
        outputs = model.train_forward(features, batch.prompt, text, masks, step_rngs(key))
        loss, terms = objective(outputs, batch.features.neck, masks, loss_config)
        return loss, (terms, batch_stats(model))

    def train_step(state: TrainState, frozen: Frozen, batch: TrainBatch):
        key = jax.random.fold_in(state.key, state.step)
        stream = jax.random.fold_in(key, Stream.PSEUDO_ANOMALY)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(stream, batch.image_ids)
        pseudo, masks = paste(keys, batch.images, batch.textures)
        masks = interleave(jnp.zeros_like(masks), masks)
        (loss, (terms, stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state, frozen, batch, pseudo, masks, key
        )
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = terms | {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": schedule(state.step),
        }
        return TrainState(state.step + 1, params, stats, opt_state, state.key), metrics

    whole = replicated(mesh)
    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(state_shardings, whole, split),
        out_shardings=(state_shardings, whole),
    )
