"""Memory of a device during training, from shapes and the compiled step."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from promptmad_jax.config import Config
from promptmad_jax.data.prepared import find_prepared, split_sizes
from promptmad_jax.data.textures import texture_files
from promptmad_jax.methods.method import AbstractTraining
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


class Memory(NamedTuple):
    """Bytes on one device.

    Attributes:
        frozen: backbone and text tokens.
        images: resident images, textures and features; 0 where they stay in host memory.
        batch: the device's share of a batch.
        temporaries: XLA's, during the step: activations and gradients.
        gradients: all gradients, part of the temporaries.
        count: training images; None if the data set is not prepared here.
    """

    parameters: int
    optimizer: int
    statistics: int
    frozen: int
    images: int
    batch: int
    temporaries: int
    gradients: int
    count: int | None
    resident: bool

    @property
    def total(self) -> int:
        """Bytes on the device at once."""
        return sum(self[:7])  # the gradients are among the temporaries


def memory(
    config: Config, run: AbstractTraining, compiled: Any, devices: int, resident: bool
) -> Memory:
    """Memory of one of `devices` while it runs `compiled`, the step of `run`."""
    state = run.state
    count = image_count(config)
    return Memory(
        parameters=_sum(_device_bytes, state.params),
        optimizer=_sum(_device_bytes, state.opt_state),
        statistics=_sum(_device_bytes, (state.stats, state.step, state.key)),
        frozen=_sum(_bytes, run.frozen),
        images=_resident_bytes(config, run, count) if resident and count else 0,
        batch=_sum(_bytes, run.batch) // devices,
        temporaries=compiled.memory_analysis().temp_size_in_bytes,
        gradients=_sum(_bytes, state.params),
        count=count,
        resident=resident,
    )


def _sum(measure: Callable[[Any], int], tree: Any) -> int:
    return sum(map(measure, jax.tree.leaves(tree)))


def image_count(config: Config) -> int | None:
    """Training images of the data set, all classes; None if it is not prepared here."""
    try:
        return split_sizes(find_prepared(config.data.dataset, config.data.data_dir))["train"]
    except (UserError, KeyError):
        return None


def _resident_bytes(config: Config, run: AbstractTraining, count: int) -> int:
    features = run.cached_features(count)
    directory = config.data.texture_dir
    textures = len(texture_files(directory)[0]) if directory else count
    return _sum(_bytes, features) + (count + textures) * 3 * config.data.image_size**2
