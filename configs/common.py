"""Defaults, argument parser and smoke test that the configurations share."""

import math
from typing import Any

from ml_collections import ConfigDict

from promptmad_jax.config import Config
from promptmad_jax.models.backbone.backbone import BackboneConfig, build_backbone
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.errors import UserError

# Repositories of the Hugging Face hub, or weights that ship; docs/weights.md has their licences.
_SIZES = {"s": "small", "b": "base", "l": "large", "g": "giant"}
BACKBONES = {
    "efficientnet_b4": "timm/tf_efficientnet_b4.aa_in1k",
    "efficientnetv2_b0": "timm/tf_efficientnetv2_b0.in1k",
    "efficientnetv2_nano": "shipped",
    **{f"dinov2_vit{s}14": f"facebook/dinov2-{size}" for s, size in _SIZES.items()},
    **{
        f"dinov2_vit{s}14_reg": f"facebook/dinov2-with-registers-{size}"
        for s, size in _SIZES.items()
    },
    **{
        f"dinov3_vit{size}16{plus}": f"facebook/dinov3-vit{size}16{plus}-pretrain-lvd1689m"
        for size, plus in (("s", ""), ("s", "plus"), ("b", ""), ("l", ""))
    },
}
_MVTEC_IMAGES = 3629  # for training, of all 15 classes
_TOKENS = 32  # along a side, for backbones with a single grid


def defaults() -> ConfigDict:
    """Returns every setting at its default, as a locked ConfigDict."""
    config = ConfigDict(to_dict(Config()))
    config.lock()
    return config


def parse_arg(arg: str | None, **allowed: Any) -> ConfigDict:
    """Parses `smoke,seed=3` into a ConfigDict with the types of the defaults in `allowed`.

    A name alone sets a boolean. `smoke` (the same run in miniature) and `seed` are always allowed.

    Raises:
        UserError: a name is unknown or a value has the wrong type.
    """
    values = {"smoke": False, "seed": 0} | allowed
    for part in filter(None, (arg or "").split(",")):
        name, equals, text = part.partition("=")
        if name not in values:
            raise UserError(
                f"config argument {name!r} is unknown; known are {', '.join(sorted(values))}"
            )
        values[name] = _convert(name, text if equals else "true", values[name])
    return ConfigDict(values)


def _convert(name: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise UserError(f"config argument {name}={text!r}: it must be true or false")
        return text.lower() == "true"
    try:
        return type(default)(text)
    except ValueError as error:
        raise UserError(
            f"config argument {name}={text!r}: it must be {type(default).__name__}"
        ) from error


def use_backbone(config: ConfigDict, name: str) -> None:
    """Takes another backbone and what fits its levels; "" leaves the configuration as it is.

    A backbone with a single grid has no levels for the laterals, so its images are larger, and its
    features are standardised, since a few channels of a Transformer are far larger than the rest.
    The learning rates stay: what learns has the same widths.

    Raises:
        UserError: there is no such backbone, or none with published weights.
    """
    if not name:
        return
    if name not in BACKBONES:
        raise UserError(
            f"config argument backbone={name!r}: it must be one of {', '.join(BACKBONES)}"
        )
    config.backbone.update(name=name, weights=BACKBONES[name])
    strides = build_backbone(BackboneConfig(name)).strides
    if len(set(strides)) == 1:
        config.data.image_size = _TOKENS * strides[-1]
        config.segmentor.laterals = False
        config.reconstructor.standardize = True
        # Between its tokens are none to compare, and a finer grid would be searched for longer.
        config.memory.update(levels=strides[-1:], stride=strides[-1])


def use_memory(config: ConfigDict) -> None:
    """Starts PromptMAD from a memory of normal patches, which the segmentor corrects.

    Reconstruction, diffusion, Transformer and text are left out: together they cost four fifths of
    a training step of full size, and bring little (docs/results.md).
    """
    config.memory.patches = 12_288
    config.reconstructor.enabled = False
    config.diffusion.steps = 0
    config.segmentor.update(width=64, laterals=False, attention_layers=0, text=False)
    config.optimizer.update(
        learning_rate=1e-3, schedule="cosine", decay_factor=0.01, warmup_steps=20, clip_norm=5.0
    )
    config.eval.fusion = "weighted"


def use_batch(config: ConfigDict, size: int) -> None:
    """Sets the batch size of training and evaluation on MVTec-AD; 0 leaves all as it is.

    The learning rate is multiplied by the square root of the ratio of the sizes, which is what the
    rule of Malladi et al. for Adam (2022) says of it (its betas and epsilon stay), and rises to it
    over the first five epochs.

    Raises:
        UserError: the size is negative.
    """
    if size < 0:
        raise UserError(f"config argument batch={size}: it must not be negative")
    if not size:
        return
    factor = math.sqrt(size / config.train.batch_size)
    config.optimizer.learning_rate *= factor
    config.optimizer.warmup_steps = 5 * math.ceil(_MVTEC_IMAGES / size)
    config.train.batch_size = config.eval.batch_size = size


def shrink(config: ConfigDict) -> None:
    """Shrinks a configuration to a smoke test: tiny widths, a few steps, random weights."""
    config.backbone.weights = "random"
    settings = config.backbone.to_dict()
    backbone = build_backbone(BackboneConfig(**settings))
    config.data.image_size = 4 * backbone.image_multiple
    if len(set(backbone.strides)) == 1:
        config.backbone.groups = ((0,), (1,))
    config.text.source = "random"
    config.optimizer.warmup_steps = min(config.optimizer.warmup_steps, 20)
    config.reconstructor.update(width=32, heads=4, encoder_layers=1, decoder_layers=1, mlp_width=64)
    config.memory.patches = min(config.memory.patches, 64)
    config.refiner.width = 16
    config.segmentor.update(
        width=16, fine_width=8, heads=4, denoiser_width=8, denoiser_deep_width=16
    )
    config.diffusion.steps = min(config.diffusion.steps, 3)
    steps = 4 if config.train.steps else 0
    config.train.update(
        batch_size=8, steps=steps, log_every=2, checkpoint_every=2, eval_every=0, eval_at=()
    )
    config.eval.update(batch_size=8, calibration_images=8)
