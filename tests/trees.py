"""Counts over trees of arrays."""

import jax


def count_params(params):
    """Number of scalars in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
