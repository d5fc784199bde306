"""AdamW with clipping, and its learning-rate schedule."""

from dataclasses import dataclass

import jax.numpy as jnp
import optax


@dataclass(frozen=True)
class OptimizerConfig:
    """The defaults are OneNIP's.

    Attributes:
        schedule: "step" multiplies the rate by decay_factor once, after `decay_epochs` epochs;
            "cosine" falls to decay_factor * learning_rate at the end; "constant".
        decay_epochs: 801 because the reference steps its scheduler after an epoch.
        warmup_steps: linear from zero.
        clip_norm: bound on the global L2 norm of the gradient; 0 for none.
        weight_decay: on all parameters, biases and norms included, as the reference.
    """

    learning_rate: float = 1e-4
    schedule: str = "step"
    decay_epochs: int = 801
    decay_factor: float = 0.1
    warmup_steps: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 1e-4
    clip_norm: float = 0.1


def make_schedule(
    config: OptimizerConfig, total_steps: int, steps_per_epoch: int
) -> optax.Schedule:
    """Learning rate by step number, from 0."""
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
        case other:
            raise ValueError(f"optimizer.schedule is {other!r}, not step, cosine or constant")
    if not config.warmup_steps:
        return schedule
    warmup = optax.linear_schedule(0.0, rate, config.warmup_steps)
    offset = 0 if config.schedule == "step" else config.warmup_steps
    return lambda step: jnp.where(step < config.warmup_steps, warmup(step), schedule(step - offset))


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW, which without weight decay is Adam."""
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(
        clip,
        optax.adamw(
            schedule,
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
        ),
    )
