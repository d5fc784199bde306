"""A state as a flat table from the slash-joined path of a leaf to its array."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

Table = dict[str, Any]


def flatten(tree: Any) -> Table:
    """`{"params/neck/kernel": array, ...}` of any pytree."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def unflatten(like: Any, table: Table) -> Any:
    """The leaves of `table` in the structure of `like`."""
    return jax.tree_util.tree_unflatten(
        jax.tree_util.tree_structure(like), [table[name] for name in flatten(like)]
    )


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """A sentence for each leaf that is in one table alone, or of another type or shape."""
    faults = [f"{name} is not in the checkpoint" for name in sorted(wanted.keys() - stored.keys())]
    faults += [f"{name} is not in the model" for name in sorted(stored.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & stored.keys()):
        there, here = _description(stored[name]), _description(wanted[name])
        if there != here:
            faults.append(f"{name} is {there} in the checkpoint and {here} in the model")
    return faults


def _description(array: Any) -> str:
    """Type and shape as stored: a typed PRNG key is a row of unsigned integers."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(array.shape, array.dtype))
    return f"{jnp.dtype(array.dtype).name}{list(array.shape)}"
