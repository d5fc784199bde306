"""NNX modules as pure functions: a static graph definition and nested dicts of arrays.

A module declares parameters and a forward pass; nothing outside `models/` holds one. Plain dicts
are the fastest to dispatch, read well in a checkpoint and are the only form `jax.export`
serializes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from promptmad_jax.runtime.key_streams import KeyStreams

Params = dict[str, Any]
Stats = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """A model without its arrays: hashable, so that it can be closed over by a jitted function.

    `build(rngs)` makes the NNX module. Parameters are its `nnx.Param` leaves, statistics its
    `nnx.BatchStat` leaves (the running moments of BatchNorm).
    """

    build: Callable[[KeyStreams], nnx.Module]
    graphdef: nnx.GraphDef

    @classmethod
    def create(cls, build: Callable[[KeyStreams], nnx.Module]) -> "Network":
        skeleton = nnx.eval_shape(lambda: build(KeyStreams(0)))
        graphdef, _, _ = nnx.split(skeleton, nnx.Param, nnx.BatchStat)
        return cls(build, graphdef)

    def init(self, key: jax.Array) -> tuple[Params, Stats]:
        """Returns freshly drawn (params, stats); call it under `jit` with `out_shardings`."""
        _, params, stats = nnx.split(self.build(KeyStreams(key)), nnx.Param, nnx.BatchStat)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def bind(self, params: Params, stats: Stats) -> Any:
        """Returns the module with these arrays, for use inside one traced function."""
        return nnx.merge(self.graphdef, params, stats)


def batch_stats(module: nnx.Module) -> Stats:
    """Returns the module's running statistics, after a forward pass in training mode."""
    return nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
