from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from promptmad_jax.prompts.shuffle import deranged


@given(st.lists(st.integers(0, 5), min_size=2, max_size=40), st.integers(0, 2**32 - 1))
def test_nothing_matches(groups, seed):
    order = deranged(groups, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(groups)))
    assert (order != np.arange(len(groups))).all()
    if 2 * max(Counter(groups).values()) <= len(groups):
        assert all(groups[source] != group for source, group in zip(order, groups, strict=True))


def test_follows_the_seed_and_mixes():
    groups = np.repeat(np.arange(6), 5).tolist()
    first, again, other = (deranged(groups, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    givers = {groups[source] for source, group in zip(first, groups, strict=True) if group == 0}
    assert len(givers) > 1
