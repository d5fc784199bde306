"""Few-step diffusion between a coarse anomaly map and the true mask, on maps in [-1, 1].

Forward: x_t = mu_t(x0) + lambda sqrt(1 - abar_t) eps,
mu_t(x0) = sqrt(abar_t) x0 + (1 - sqrt(abar_t)) c,
with c the coarse map: the process ends where inference starts (compare SegRefiner and HiDiff).
`prior="zero"`, `noise_scale=1`, `zero_terminal_snr=False` is DDPM's (Ho et al., 2020); with
`start="sample"` its chain starts from noise. The reverse chain is DDIM
(Song et al., 2021) with eta = 0, deterministic, ten steps under `jax.lax.scan`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from promptmad_jax.runtime.field_types import BelowOne, PositiveFloat, Range, UnitInterval


@dataclass(frozen=True)
class DiffusionConfig:
    """The diffusion that refines PromptMAD's coarse map, in training and in inference.

    The publication states 10 steps and linear betas; the other values are ours.

    Attributes:
        steps: diffusion steps T; 0 leaves the refinement out, and the coarse map is final.
        beta_start: beta of the first step; the schedule is linear.
        beta_end: beta of the last step.
        zero_terminal_snr: rescale sqrt(abar) so that sqrt(abar_T) = 0 (Lin et al., 2024). Without
            it x_T still holds a fifth of the mask, which the denoiser would learn to read.
        prior: mean that the forward process ends at: the coarse map, or zero.
        noise_scale: lambda, the scale of the noise.
        objective: the network predicts the mask as a logit ("x0"), or the noise ("epsilon").
        start: "mean" starts the reverse chain at the prior's mean, "sample" adds the terminal
            noise.
        samples: chains that are averaged where start is "sample".
        terminal_probability: share of the training samples drawn at t = T, where nothing of the
            mask is left in x_t; the others are uniform over 1..T.
        self_estimate_probability: share of the training samples whose x_t is made from the
            denoiser's own first estimate instead of the mask, as all are at test. Without it the
            denoiser sees only x_t with the true mask in them and learns to trust them.
        unroll: steps of the chain per iteration of `jax.lax.scan`; speed only.

    Raises:
        ValueError: objective "epsilon" with a zero terminal signal-to-noise ratio.
    """

    steps: Annotated[int, Range(0, 1000)] = 10
    beta_start: BelowOne = 1e-4
    beta_end: BelowOne = 0.5
    zero_terminal_snr: bool = True
    prior: Literal["coarse", "zero"] = "coarse"
    noise_scale: PositiveFloat = 0.3
    objective: Literal["x0", "epsilon"] = "x0"
    start: Literal["mean", "sample"] = "mean"
    samples: Annotated[int, Range(1, 1000)] = 1
    terminal_probability: UnitInterval = 0.25
    self_estimate_probability: UnitInterval = 0.5
    unroll: Annotated[int, Range(1, 1000)] = 1

    def __post_init__(self):
        if self.objective == "epsilon" and self.zero_terminal_snr:
            raise ValueError(
                "objective 'epsilon' cannot start from a step without signal: set "
                "zero_terminal_snr=False"
            )


def signal_levels(config: DiffusionConfig) -> np.ndarray:
    """Returns sqrt(abar_t) for t = 0..T, float64 [T + 1]; the first is 1."""
    beta = np.linspace(config.beta_start, config.beta_end, config.steps)
    level = np.sqrt(np.concatenate([[1.0], np.cumprod(1 - beta)]))
    if config.zero_terminal_snr:
        level = (level - level[-1]) / (level[0] - level[-1])
    return level


def _coefficients(config: DiffusionConfig) -> tuple[jax.Array, jax.Array]:
    """sqrt(abar_t) and lambda sqrt(1 - abar_t), float32 [T + 1] each."""
    level = signal_levels(config)
    noise = config.noise_scale * np.sqrt(1 - level**2)
    return jnp.asarray(level, jnp.float32), jnp.asarray(noise, jnp.float32)


def prior_mean(coarse_logit: jax.Array, config: DiffusionConfig) -> jax.Array:
    """c: the coarse probability scaled to [-1, 1], gradient stopped, or zero."""
    if config.prior == "zero":
        return jnp.zeros_like(coarse_logit)
    return jax.lax.stop_gradient(2 * jax.nn.sigmoid(coarse_logit) - 1)


def draw_times(key: jax.Array, batch: int, config: DiffusionConfig) -> jax.Array:
    """Training steps t, int32 [batch] in 1..T."""
    coin, uniform = jax.random.split(key)
    t = jax.random.randint(uniform, (batch,), 1, config.steps + 1)
    terminal = jax.random.bernoulli(coin, config.terminal_probability, (batch,))
    return jnp.where(terminal, config.steps, t)


def diffuse(
    x0: jax.Array, prior: jax.Array, t: jax.Array, noise: jax.Array, config: DiffusionConfig
) -> jax.Array:
    """x_t of masks x0 [B, H, W] in [-1, 1] at steps t [B]."""
    level, spread = (c[t][:, None, None] for c in _coefficients(config))
    return level * x0 + (1 - level) * prior + spread * noise


def _to_logit(prediction, x_t, prior, level, spread, config):
    """The network's output as a logit of the mask; x0 is 2 sigmoid(logit) - 1."""
    if config.objective == "x0":
        return prediction
    x0 = (x_t - spread * prediction - (1 - level) * prior) / level
    return 2 * jnp.arctanh(jnp.clip(x0, -1 + 1e-6, 1 - 1e-6))


Denoise = Callable[[jax.Array, jax.Array], jax.Array]


class Chain(NamedTuple):
    """The end of a deterministic chain, and its way there.

    Attributes:
        x0: [B, ...], which is 2 sigmoid(logit) - 1.
        logit: [B, ...], the last estimate of the mask.
        logits: [T, B, ...], the estimates after all steps.
    """

    x0: jax.Array
    logit: jax.Array
    logits: jax.Array


def reverse_chain(
    denoise: Denoise, prior: jax.Array, start: jax.Array, config: DiffusionConfig
) -> Chain:
    """Runs the deterministic chain from x_T = start.

    Args:
        denoise: (x_t [B, ...], t int32 [B]) to the network's prediction [B, ...].
        prior: c, [B, ...], of any shape: the chain is elementwise.
        start: x_T, [B, ...].
    """
    levels, spreads = _coefficients(config)

    def step(state, t):
        x_t, _ = state
        level, spread = levels[t], spreads[t]
        prediction = denoise(x_t, jnp.full(x_t.shape[0], t))
        logit = _to_logit(prediction, x_t, prior, level, spread, config)
        x0 = 2 * jax.nn.sigmoid(logit) - 1
        mean = level * x0 + (1 - level) * prior
        noise = (x_t - mean) / spread
        below = levels[t - 1]
        return (below * x0 + (1 - below) * prior + spreads[t - 1] * noise, logit), logit

    # The last logit is carried, so that XLA drops the others where nobody reads them.
    (x0, logit), logits = jax.lax.scan(
        step, (start, start), jnp.arange(config.steps, 0, -1), unroll=config.unroll
    )
    return Chain(x0, logit, logits)


def chain_starts(prior: jax.Array, config: DiffusionConfig) -> list[jax.Array]:
    """Returns the x_T [B, H, W] of inference: one, or `samples` of them, each of a fixed key."""
    if config.start == "mean":
        return [prior]
    spread = _coefficients(config)[1][-1]
    keys = jax.random.split(jax.random.key(0), config.samples)
    # The same noise for every image: a map depends on its image alone, not on its batch.
    return [prior + spread * jax.random.normal(key, prior.shape[1:])[None] for key in keys]


def refine(
    denoise: Denoise, prior: jax.Array, starts: list[jax.Array], config: DiffusionConfig
) -> jax.Array:
    """The refined map as a logit, shaped as `prior`: the chains' last estimates, averaged.

    A logit and not x_0, whose rounding near -1 would tie the scores of most normal pixels.
    """
    finals = [reverse_chain(denoise, prior, start, config).logit for start in starts]
    return sum(finals) / len(finals)
