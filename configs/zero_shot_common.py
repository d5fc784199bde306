"""Parts that the zero-shot configurations share."""

import dataclasses

from ml_collections import ConfigDict

from promptmad_jax.configs import common
from promptmad_jax.losses.defect_types import MULTIADS_LOSS
from promptmad_jax.models.zero_shot.config import CLIP_ZERO_SHOT, DAPO, MULTIADS, DapoConfig

SIZE = 518
# Products of the synthetic data set in the smoke tests.
SMOKE_SOURCE = ("hex_bolt",)
SMOKE_TARGET = ("wood_board",)


def dapo(source: str, target: str) -> ConfigDict:
    """DAPO, trained on the test split of `source`."""
    config = _trained(DAPO, source, target)
    config.name = f"dapo_{_short(source)}_to_{_short(target)}"
    return config


def multiads(source: str, target: str) -> ConfigDict:
    """MultiADS: hand-written prompts; only the adapters are trained."""
    config = _trained(MULTIADS, source, target)
    config.name = f"multiads_{_short(source)}_to_{_short(target)}"
    config.type_loss.update(dataclasses.asdict(MULTIADS_LOSS))
    # The cached states, 11 MB per image, do not fit many devices; see docs/zero_shot.md.
    config.train.resident = "no"
    return config


def untrained(target: str) -> ConfigDict:
    """CLIP with hand-written prompts, untrained."""
    config = _common(CLIP_ZERO_SHOT, target)
    config.name = "clip_zero_shot"
    return config


def _trained(detector: DapoConfig, source: str, target: str) -> ConfigDict:
    config = _common(detector, target)
    config.source.dataset = source
    config.source.single_defect = source == "visa"
    config.optimizer.update(
        learning_rate=1e-3,
        schedule="constant",
        beta1=0.5,
        beta2=0.999,
        weight_decay=0.0,
        clip_norm=0.0,
    )
    # Fixed in advance: the target data must not choose the step.
    config.train.update(batch_size=8, epochs=5, checkpoint_every=200)
    return config


def _common(detector: DapoConfig, target: str) -> ConfigDict:
    config = common.defaults()
    config.model = "zero_shot"
    config.data.update(dataset=target, image_size=SIZE)
    config.dapo.update(dataclasses.asdict(detector))
    # Overriding data.image_size changes both.
    config.dapo.image_size = config.data.get_ref("image_size")
    config.eval.compat = ()
    return config


def without_image_prompts(config: ConfigDict) -> None:
    """Trains only text prompts and adapters, so that the image tower runs once per image."""
    config.name += "_cached"
    config.dapo.image_tokens = 0
    config.train.resident = "no"


def shrink(config: ConfigDict) -> None:
    """Shrinks a configuration to a smoke test: random towers, 64 px, synthetic data, few steps."""
    config.data.update(dataset="synthetic_mvtec", image_size=64, classes=SMOKE_TARGET)
    config.clip.weights = "random"
    config.dapo.taps = (2, 4) if len(config.dapo.taps) > 1 else (4,)
    config.dapo.update(
        prompts=min(config.dapo.prompts, 2),
        text_tokens=min(config.dapo.text_tokens, 2),
        image_tokens=min(config.dapo.image_tokens, 2),
    )
    if config.source.dataset:
        config.source.update(dataset="synthetic_mvtec", classes=SMOKE_SOURCE, single_defect=False)
        config.train.update(steps=4, log_every=2, checkpoint_every=2)
    config.eval.batch_size = 8


def _short(dataset: str) -> str:
    return dataset.removesuffix("_ad")
