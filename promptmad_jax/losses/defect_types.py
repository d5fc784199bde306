"""Losses of the zero-shot detectors, on probabilities of K + 1 states, the normal one first."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from promptmad_jax.models.zero_shot.detector import TrainOutputs
from promptmad_jax.runtime.field_types import NonNegativeFloat, UnitInterval


@dataclass(frozen=True)
class DefectTypeLossConfig:
    """Weights and constants of the zero-shot losses; the defaults are DAPO's.

    A term of weight 0 is left out.

    Attributes:
        image: weight of the image's cross-entropy.
        focal: weight of the focal loss over the states, summed over the taps.
        normal_dice: weight of the normal state's Dice loss, summed over the taps.
        defect_dice: weight of the Dice loss of all defect types together, summed over the taps.
        gamma: exponent of the focal loss.
        smoothing: label smoothing of the focal loss's targets.
    """

    image: NonNegativeFloat = 1.0
    focal: NonNegativeFloat = 4.0
    normal_dice: NonNegativeFloat = 4.0
    defect_dice: NonNegativeFloat = 4.0
    gamma: NonNegativeFloat = 2.0
    smoothing: UnitInterval = 1e-5


MULTIADS_LOSS = DefectTypeLossConfig(image=0.0, focal=1.0, normal_dice=0.0, defect_dice=1.0)


def defect_type_objective(
    outputs: TrainOutputs, types: jax.Array, anomalous: jax.Array, config: DefectTypeLossConfig
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Total loss and its unweighted terms, means over images (and pixels).

    L = CE(image) + 4 sum_taps [Focal + Dice(M_0, 1 - G) + Dice(sum_k M_k, G)] in DAPO, with G where
    `types` is above 0; sum_taps [Focal + Dice(sum_k M_k, G)] in MultiADS.

    Args:
        types: int [B, S, S], the state of each pixel: 0 normal, k the k-th defect type.
        anomalous: bool [B], the images' labels; a small defect may be lost from its mask.
    """
    defect = (types > 0).astype(jnp.float32)
    terms = {
        "image": lambda: image_cross_entropy(outputs.image_logits, anomalous).mean(),
        "focal": lambda: sum(
            focal_of_types(maps, types, config.gamma, config.smoothing).mean()
            for maps in outputs.maps
        ),
        "normal_dice": lambda: sum(
            dice_of_map(maps[..., 0], 1 - defect).mean() for maps in outputs.maps
        ),
        "defect_dice": lambda: sum(
            dice_of_map(maps[..., 1:].sum(-1), defect).mean() for maps in outputs.maps
        ),
    }
    terms = {name: term() for name, term in terms.items() if getattr(config, name)}
    return sum(getattr(config, name) * term for name, term in terms.items()), terms


def focal_of_types(
    probabilities: jax.Array, types: jax.Array, gamma: float, smoothing: float
) -> jax.Array:
    """-(1 - p)^gamma log p of each pixel, [B, H, W] (Lin et al., 2017, for many classes).

    p is the probability of the smoothed target: sum_c t_c P_c with t = 1 - smoothing for the true
    state and smoothing / K for the K others, so that log p is finite.

    Args:
        probabilities: [B, H, W, K + 1].
        types: int [B, H, W].
    """
    states = probabilities.shape[-1]
    true = types[..., None] == jnp.arange(states)[None, None, None]
    targets = jnp.where(true, 1 - smoothing, smoothing / (states - 1))
    p = (targets * probabilities).sum(-1)
    return -jnp.power(1 - p, gamma) * jnp.log(p)


def dice_of_map(probabilities: jax.Array, masks: jax.Array) -> jax.Array:
    """1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1) of each image, [B, H, W] twice to [B]."""
    overlap = jnp.einsum("bhw,bhw->b", probabilities, masks, precision=jax.lax.Precision.HIGHEST)
    total = probabilities.sum((1, 2)) + masks.sum((1, 2))
    return 1 - (2 * overlap + 1) / (total + 1)


def image_cross_entropy(logits: jax.Array, anomalous: jax.Array) -> jax.Array:
    """Cross-entropy of each image, [B]: logits [B, 2], normal and abnormal; labels bool [B]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, anomalous.astype(jnp.int32))
