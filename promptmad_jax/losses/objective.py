"""The training objective of the reconstruction detectors."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from promptmad_jax.losses.reconstruction import feature_error
from promptmad_jax.losses.segmentation import dice_loss, focal_loss, per_positive
from promptmad_jax.models.reconstruction.outputs import Outputs, full_size_logit
from promptmad_jax.models.reconstruction.pairs import for_both
from promptmad_jax.runtime.field_types import NonNegativeFloat, PositiveFloat, UnitInterval


@dataclass(frozen=True)
class LossConfig:
    """Weights and constants of the losses; terms of a map that the model lacks are left out.

    OneNIP has feature 1 and dice 0.5; PromptMAD adds focal 1 and the terms of the refined map.
    UniAD's loss is the feature error alone.

    Attributes:
        feature: weight of the squared error of the reconstructed features.
        dice: weight of the coarse map's Dice loss.
        focal: weight of the coarse map's focal loss.
        refined_dice: weight of the refined map's Dice loss.
        refined_focal: weight of the refined map's focal loss.
        noise: weight of the noise error, for `diffusion.objective` "epsilon".
        focal_alpha: weight of anomalous pixels in the focal loss; normal ones have 1 minus it.
        focal_gamma: exponent of the focal loss; 0 is cross-entropy.
        dice_factor: factor of the overlap in the Dice loss: 1 is OneNIP's, 2 the usual one.
    """

    feature: NonNegativeFloat = 1.0
    dice: NonNegativeFloat = 0.5
    focal: NonNegativeFloat = 1.0
    refined_dice: NonNegativeFloat = 0.5
    refined_focal: NonNegativeFloat = 1.0
    noise: NonNegativeFloat = 1.0
    focal_alpha: UnitInterval = 0.25
    focal_gamma: NonNegativeFloat = 2.0
    dice_factor: PositiveFloat = 1.0


def objective(
    outputs: Outputs, clean: jax.Array, masks: jax.Array, config: LossConfig
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Total loss and its unweighted terms.

    Args:
        outputs: of B pairs of images (models/pairs.py), or of the B clean ones alone.
        clean: neck features of the B clean images, the target of both versions, [B, h, w, C].
        masks: [2B, S, S] 0/1.
    """
    terms = {}
    if outputs.reconstruction is not None:
        target = clean if len(outputs.reconstruction) == len(clean) else for_both(clean)
        terms["feature"] = feature_error(outputs.reconstruction, target).mean()
    if outputs.coarse_logit is not None:
        terms |= _segmentation("", outputs.coarse_logit, masks, config)
    if outputs.refined_logit is not None:
        terms |= _segmentation("refined_", outputs.refined_logit, masks, config)
    if outputs.noise_error is not None:
        terms["noise"] = jnp.square(outputs.noise_error).mean()
    weighted = [getattr(config, name) * value for name, value in terms.items()]
    return sum(weighted), terms


def _segmentation(prefix: str, logit, masks, config):
    logit = full_size_logit(logit, masks.shape[1])
    focal = focal_loss(logit, masks, config.focal_alpha, config.focal_gamma)
    return {
        f"{prefix}dice": dice_loss(logit, masks, factor=config.dice_factor).mean(),
        f"{prefix}focal": per_positive(focal, masks),
    }
