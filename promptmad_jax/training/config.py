"""Settings of the training loop."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from promptmad_jax.runtime.field_types import NonNegativeInt, PositiveInt, Range, Seed


@dataclass(frozen=True)
class TrainConfig:
    """Length of a run and the intervals of its work, in steps unless noted otherwise.

    Attributes:
        batch_size: global batch size, over all devices.
        epochs: passes over the training images.
        steps: length in steps; -1 leaves it to epochs. 0 trains nothing: with a memory, a
            training-free detector.
        seed: seed of the initialisation, the order of the data and the augmentation.
        log_every: steps between log rows.
        eval_every: steps between evaluations; 0 evaluates at the end only.
        eval_at: further steps to evaluate at.
        checkpoint_every: steps between checkpoints; the last step and evaluated steps are saved as
            well.
        keep: number of newest checkpoints to keep.
        keep_every: also keep checkpoints at multiples of it; 0 for none.
        resident: keep images and features on the devices; "auto" does so on accelerators.
        fine_dtype: data type of cached features: the segmentor's fine levels, and CLIP's image
            features of a zero-shot run.
        cache_images: compute CLIP's image features once if the image tower is not trained.
        writers: destinations of the metrics in addition to metrics.jsonl and TensorBoard: "wandb",
            or MODULE:FACTORY; see runtime/writers.py.
    """

    batch_size: Annotated[int, Range(1, 1_000_000)] = 8
    epochs: PositiveInt = 1000
    steps: Annotated[int, Range(-1, 2_000_000_000)] = -1
    seed: Seed = 0
    log_every: PositiveInt = 50
    eval_every: NonNegativeInt = 0
    eval_at: tuple[NonNegativeInt, ...] = ()
    checkpoint_every: PositiveInt = 1000
    keep: PositiveInt = 3
    keep_every: NonNegativeInt = 0
    resident: Literal["auto", "yes", "no"] = "auto"
    fine_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    cache_images: bool = True
    writers: tuple[str, ...] = ()


def evaluates_at(config: TrainConfig, step: int) -> bool:
    """Returns True if an evaluation follows this step, unless it is the last."""
    return step in config.eval_at or bool(config.eval_every and step % config.eval_every == 0)


def total_steps(config: TrainConfig, num_images: int) -> tuple[int, int]:
    """Returns the number of steps of the whole run, and of an epoch."""
    per_epoch = math.ceil(num_images / config.batch_size)
    steps = config.epochs * per_epoch if config.steps < 0 else config.steps
    return steps, per_epoch
