"""The diffusion process and its chain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.models.reconstruction.diffusion import (
    DiffusionConfig,
    chain_starts,
    diffuse,
    draw_times,
    prior_mean,
    refine,
    reverse_chain,
    signal_levels,
)

TRUTH = jnp.asarray(np.random.default_rng(0).random((2, 6, 6)) < 0.3, jnp.float32)


def perfect(x_t, t):
    return 20 * (2 * TRUTH - 1)


def refined(denoise, coarse, config):
    prior = prior_mean(coarse, config)
    return refine(denoise, prior, chain_starts(prior, config), config)


def test_signal_levels_of_the_default_schedule():
    plain = signal_levels(DiffusionConfig(zero_terminal_snr=False))
    assert plain[0] == 1
    np.testing.assert_allclose(plain[-1] ** 2, 0.044, atol=5e-4)
    rescaled = signal_levels(DiffusionConfig())
    assert rescaled[0] == 1 and rescaled[-1] == 0 and (np.diff(rescaled) < 0).all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"zero_terminal_snr": False},
        {"prior": "zero", "noise_scale": 1.0},
        {"start": "sample", "samples": 2},
    ],
)
def test_with_perfect_predictions_the_chain_ends_at_the_truth(options):
    config = DiffusionConfig(**options)
    coarse = jnp.asarray(np.random.default_rng(1).normal(size=TRUTH.shape), jnp.float32)
    logit = refined(perfect, coarse, config)
    np.testing.assert_array_equal(logit > 0, TRUTH > 0)
    prior = prior_mean(coarse, config)
    chain = reverse_chain(perfect, prior, prior, config)
    np.testing.assert_allclose(chain.x0, 2 * TRUTH - 1, atol=1e-4)
    np.testing.assert_array_equal(chain.logits[-1], chain.logit)
    assert chain.logits.shape == (10, 2, 6, 6)


def test_epsilon_chain_recovers_the_truth_from_true_noise():
    config = DiffusionConfig(objective="epsilon", zero_terminal_snr=False)
    x0, prior = 2 * TRUTH - 1, jnp.zeros_like(TRUTH)
    noise = jax.random.normal(jax.random.key(0), x0.shape)
    start = diffuse(x0, prior, jnp.full(2, 10), noise, config)
    chain = reverse_chain(lambda x_t, t: noise, prior, start, config)
    np.testing.assert_allclose(chain.x0, x0, atol=1e-3)


def test_the_process_ends_at_the_coarse_map_and_holds_nothing_of_the_mask():
    config = DiffusionConfig()
    prior = jnp.full_like(TRUTH, 0.25)
    last = jnp.full(2, config.steps)
    zero = jnp.zeros_like(TRUTH)
    np.testing.assert_allclose(diffuse(2 * TRUTH - 1, prior, last, zero, config), prior, atol=1e-6)
    first = diffuse(2 * TRUTH - 1, prior, jnp.ones(2, int), zero, config)
    np.testing.assert_allclose(first, 2 * TRUTH - 1, atol=0.01)


def test_the_unrolled_scan_gives_the_same():
    coarse = jnp.asarray(np.random.default_rng(1).normal(size=TRUTH.shape), jnp.float32)
    denoise = lambda x_t, t: 3 * x_t + t[:, None, None]
    one = refined(denoise, coarse, DiffusionConfig())
    other = refined(denoise, coarse, DiffusionConfig(unroll=5))
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_training_steps_cover_the_range():
    t = draw_times(jax.random.key(0), 5000, DiffusionConfig(terminal_probability=0.0))
    np.testing.assert_allclose(np.bincount(t, minlength=11)[1:] / 5000, 0.1, atol=0.02)
    terminal = draw_times(jax.random.key(0), 5000, DiffusionConfig(terminal_probability=0.5))
    np.testing.assert_allclose((terminal == 10).mean(), 0.55, atol=0.03)


def test_the_prior_is_detached():
    grad = jax.grad(lambda x: prior_mean(x, DiffusionConfig()).sum())(jnp.ones((1, 2, 2)))
    np.testing.assert_array_equal(grad, jnp.zeros((1, 2, 2)))
