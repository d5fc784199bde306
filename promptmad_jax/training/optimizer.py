"""AdamW with gradient clipping and a learning-rate schedule."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp
import optax

from promptmad_jax.runtime.field_types import (
    BelowOne,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, gradient clipping and the learning-rate schedule; the defaults are OneNIP's.

    Attributes:
        learning_rate: peak learning rate.
        schedule: "step" multiplies the rate by decay_factor once, after decay_epochs; "cosine"
            falls to decay_factor * learning_rate at the end of the run.
        decay_epochs: epochs before the decay of "step"; 801 because the reference steps its
            scheduler after an epoch.
        decay_factor: learning rate after the decay, relative to learning_rate.
        warmup_steps: steps of linear warm-up from zero.
        beta1: decay of Adam's first moment.
        beta2: decay of Adam's second moment.
        epsilon: Adam's epsilon.
        weight_decay: decoupled weight decay of all parameters, including biases and norms, as in
            the reference.
        clip_norm: bound on the global L2 norm of the gradient; 0 for none.
    """

    learning_rate: PositiveFloat = 1e-4
    schedule: Literal["step", "cosine", "constant"] = "step"
    decay_epochs: PositiveInt = 801
    decay_factor: NonNegativeFloat = 0.1
    warmup_steps: NonNegativeInt = 0
    beta1: BelowOne = 0.9
    beta2: BelowOne = 0.999
    epsilon: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 1e-4
    clip_norm: NonNegativeFloat = 0.1


class Optimizer(NamedTuple):
    """A gradient transformation and its learning-rate schedule."""

    tx: optax.GradientTransformation
    schedule: optax.Schedule


def make_schedule(
    config: OptimizerConfig, total_steps: int, steps_per_epoch: int
) -> optax.Schedule:
    """Returns the learning rate as a function of the step, from 0."""
    rate = config.learning_rate
    match config.schedule:
        case "constant":
            schedule = optax.constant_schedule(rate)
        case "step":
            boundary = config.decay_epochs * steps_per_epoch
            schedule = optax.piecewise_constant_schedule(rate, {boundary: config.decay_factor})
        case "cosine":
            decay = max(1, total_steps - config.warmup_steps)
            schedule = optax.cosine_decay_schedule(rate, decay, config.decay_factor)
    if not config.warmup_steps:
        return schedule
    warmup = optax.linear_schedule(0.0, rate, config.warmup_steps)
    offset = 0 if config.schedule == "step" else config.warmup_steps
    return lambda step: jnp.where(step < config.warmup_steps, warmup(step), schedule(step - offset))


def make_optimizer(
    config: OptimizerConfig, total_steps: int = 1, steps_per_epoch: int = 1
) -> Optimizer:
    """Returns clipping by the global norm, followed by AdamW (Adam without weight decay).

    The numbers of steps affect only the schedule, not the optimizer's state.
    """
    schedule = make_schedule(config, total_steps, steps_per_epoch)
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    adamw = optax.adamw(
        schedule,
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
    )
    return Optimizer(optax.chain(clip, adamw), schedule)
