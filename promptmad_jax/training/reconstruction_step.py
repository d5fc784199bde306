"""Training step of detectors that reconstruct features of normal images."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from promptmad_jax.data.pipeline import TrainBatch
from promptmad_jax.data.pseudo_anomaly.config import PseudoAnomalyConfig
from promptmad_jax.data.pseudo_anomaly.synthesis import synthesize
from promptmad_jax.losses.objective import LossConfig, objective
from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.functional import Params, Stats, batch_stats
from promptmad_jax.models.reconstruction.detector import Detector, Frozen, text_of
from promptmad_jax.models.reconstruction.pairs import for_both, interleave
from promptmad_jax.runtime.key_streams import KeyStreams
from promptmad_jax.runtime.mesh import batch_sharding
from promptmad_jax.training.optimizer import Optimizer
from promptmad_jax.training.update import StepFunction, Stream, make_update


class Clean(NamedTuple):
    """Cached arrays of the training images.

    Attributes:
        features: of the N images.
        nearest: int32 [N, h, w], their nearest patches in the memory; None without one.
    """

    features: Features
    nearest: Any


class Examples(NamedTuple):
    """A batch with pseudo-anomalies.

    Attributes:
        pseudo: pseudo-anomalous images uint8 [B, S, S, 3].
        masks: float32 [2B, S, S] of the pairs (clean, pseudo-anomalous).
    """

    batch: TrainBatch
    pseudo: jax.Array
    masks: jax.Array


def step_rngs(key: jax.Array) -> KeyStreams:
    """Returns the random streams of a forward pass."""
    fold = lambda stream: jax.random.fold_in(key, stream)
    return KeyStreams(
        jitter=fold(Stream.JITTER), dropout=fold(Stream.DROPOUT), diffusion=fold(Stream.DIFFUSION)
    )


def join(clean: Features, pseudo: Features) -> Features:
    """Interleaves features of the pairs; cached bfloat16 levels are promoted to float32."""
    return Features(
        *(
            None if a is None else interleave(a.astype(b.dtype), b)
            for a, b in zip(clean, pseudo, strict=True)
        )
    )


def restore(
    images: jax.Array, pseudo: jax.Array, masks: jax.Array, where: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Takes pseudo-anomalies [B, S, S, 3] and their masks away where bool [B, S, S] is true."""
    return jnp.where(where[..., None], images.astype(pseudo.dtype), pseudo), masks * ~where


def make_train_step(
    detector: Detector,
    optimizer: Optimizer,
    pseudo_config: PseudoAnomalyConfig,
    loss_config: LossConfig,
    mesh: Mesh,
    state_shardings: Any,
    ignored: np.ndarray | None = None,
) -> StepFunction:
    """Returns the jitted step; see `make_update`.

    Args:
        ignored: bool [K, S, S], pixels of each class that get no pseudo-anomaly.

    Only pseudo-anomalous images pass through the backbone. Clean images are not augmented and the
    backbone is frozen, so their features come with the batch.
    """
    # Each device pastes into its own images; a loop over one array would gather all of them.
    split = batch_sharding(mesh)
    paste = jax.shard_map(
        functools.partial(synthesize, config=pseudo_config),
        mesh=mesh,
        in_specs=split.spec,
        out_specs=split.spec,
        check_vma=False,
    )

    def augment(batch: TrainBatch, key: jax.Array) -> Examples:
        stream = jax.random.fold_in(key, Stream.PSEUDO_ANOMALY)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(stream, batch.image_ids)
        pseudo, masks = paste(keys, batch.images, batch.textures)
        if ignored is not None:
            pseudo, masks = restore(
                batch.images, pseudo, masks, jnp.asarray(ignored)[batch.class_ids]
            )
        return Examples(batch, pseudo, interleave(jnp.zeros_like(masks), masks))

    def loss(params: Params, stats: Stats, frozen: Frozen, examples: Examples, key: jax.Array):
        batch, pseudo, masks = examples
        model = detector.network.bind(params, stats)
        clean, nearest = batch.features
        scaled = functools.partial(detector.scale_neck, frozen)
        clean = clean._replace(neck=scaled(clean.neck))
        altered = detector.features(frozen, pseudo)
        altered = altered._replace(neck=scaled(altered.neck))
        features, ids = join(clean, altered), batch.class_ids
        if nearest is not None:
            found = detector.nearest(frozen, altered, ids, batch.image_ids)
            nearest = interleave(nearest, found)
        match = detector.match(frozen, features, for_both(ids), nearest)
        text = text_of(frozen.text, ids)
        prompt, rngs = scaled(batch.prompt), step_rngs(key)
        outputs = model.train_forward(features, prompt, text, masks, rngs, match)
        value, terms = objective(outputs, clean.neck, masks, loss_config)
        return value, (terms, batch_stats(model))

    return make_update(augment, loss, optimizer, mesh, state_shardings)
