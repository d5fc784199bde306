"""Training states as flat tables, from the path of a leaf to its array."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from promptmad_jax.runtime.mesh import leaf_name

Table = dict[str, Any]


def flatten(tree: Any) -> Table:
    """Returns `{"params/neck/kernel": array, ...}` for any pytree."""
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def unflatten(like: Any, table: Table) -> Any:
    """The leaves of `table` in the structure of `like`."""
    return jax.tree.unflatten(jax.tree.structure(like), [table[name] for name in flatten(like)])


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Describes each leaf that only one of the tables has, or whose type or shape differs."""
    faults = [f"{name} is not in the checkpoint" for name in sorted(wanted.keys() - stored.keys())]
    faults += [f"{name} is not in the model" for name in sorted(stored.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & stored.keys()):
        old, new = _description(stored[name]), _description(wanted[name])
        if old != new:
            faults.append(f"{name} is {old} in the checkpoint and {new} in the model")
    return faults


def _description(array: Any) -> str:
    """Type and shape as stored: a typed PRNG key is a row of unsigned integers."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(array.shape, array.dtype))
    return f"{jnp.dtype(array.dtype).name}{list(array.shape)}"
