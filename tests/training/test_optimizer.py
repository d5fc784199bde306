"""The learning rate, and one update against torch's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from promptmad_jax.training.optimizer import OptimizerConfig, make_optimizer, make_schedule


def test_the_rate_falls_exactly_after_801_epochs():
    schedule = make_schedule(OptimizerConfig(), 1000 * 57, 57)
    np.testing.assert_allclose(schedule(801 * 57 - 1), 1e-4, rtol=1e-6)
    np.testing.assert_allclose(schedule(801 * 57), 1e-5, rtol=1e-6)


def test_cosine_with_warmup():
    config = OptimizerConfig(
        learning_rate=1.0, schedule="cosine", decay_factor=0.1, warmup_steps=10
    )
    schedule = make_schedule(config, 110, 1)
    np.testing.assert_allclose(
        [schedule(0), schedule(5), schedule(10), schedule(110)], [0, 0.5, 1, 0.1], atol=1e-6
    )


def test_updates_equal_torchs_adamw_with_clipping():
    torch = pytest.importorskip("torch")
    start = np.random.default_rng(0).normal(size=(5,)).astype(np.float32)
    config = OptimizerConfig(learning_rate=1e-2)
    tx = make_optimizer(config, 10, 1).tx
    params = jnp.asarray(start)
    state = tx.init(params)
    weight = torch.nn.Parameter(torch.from_numpy(start.copy()))
    adamw = torch.optim.AdamW([weight], lr=1e-2, weight_decay=1e-4)
    for _ in range(5):
        updates, state = tx.update(jax.grad(lambda p: (p**4).sum())(params), state, params)
        params = optax.apply_updates(params, updates)
        adamw.zero_grad()
        (weight**4).sum().backward()
        torch.nn.utils.clip_grad_norm_([weight], 0.1)
        adamw.step()
    np.testing.assert_allclose(params, weight.detach().numpy(), atol=1e-6)
