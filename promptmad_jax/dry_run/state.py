"""The parts of a training state by their sharding, and the size of the data set."""

import math
import re
from dataclasses import dataclass
from typing import Any

import jax

from promptmad_jax.config import Config
from promptmad_jax.data.prepared import find_prepared, split_sizes
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.mesh import Rules, leaf_name

BY_SIZE = "by size"


@dataclass(frozen=True)
class StateGroup:
    """Arrays of the state that share a part of the model, a rule and a split.

    Attributes:
        whole, device: their bytes, in total and on one device.
    """

    name: str
    rule: str
    split: str
    arrays: int
    whole: int
    device: int


def state_groups(state: Any, rules: Rules) -> list[StateGroup]:
    """Groups the arrays of `state`, a tree of shapes and shardings."""
    groups: dict[tuple[str, str, str], list[Any]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = leaf_name(path)
        rule = next((pattern for pattern, _ in rules if re.search(pattern, name)), BY_SIZE)
        key = (_group_of(name), rule, _describe(leaf))
        groups.setdefault(key, []).append(leaf)
    return [
        StateGroup(*key, len(leaves), sum(map(_bytes, leaves)), sum(map(_device_bytes, leaves)))
        for key, leaves in groups.items()
    ]


def _group_of(name: str) -> str:
    """The first two parts of a name; opt_state/mu for opt_state/1/0/mu/segmentor/conv1/kernel."""
    parts = name.split("/")
    if parts[0] != "opt_state":
        return "/".join(parts[:2])
    moments = [part for part in parts if part in ("mu", "nu")]
    return "/".join(["opt_state", *(moments or parts[-1:])])


def _describe(leaf: Any) -> str:
    dims = [
        f"dimension {dim} over {entry if isinstance(entry, str) else ' and '.join(entry)}"
        for dim, entry in enumerate(leaf.sharding.spec)
        if entry
    ]
    return ", ".join(dims) or "replicated"


def _bytes(leaf: Any) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def _device_bytes(leaf: Any) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def image_count(config: Config) -> int | None:
    """Training images of the data set, all classes; None if it is not prepared here."""
    try:
        return split_sizes(find_prepared(config.data.dataset, config.data.data_dir))["train"]
    except (UserError, KeyError):
        return None
