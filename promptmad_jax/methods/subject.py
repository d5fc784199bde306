"""The protocol between `benchmark` and a family: a detector with random arrays, to be timed.

Nothing that is measured depends on the arrays' values.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, Sharding

from promptmad_jax.training.state import TrainState
from promptmad_jax.training.update import Metrics, StepFunction

# Steps of a run and of an epoch: only the learning rate depends on them.
STEPS = (1_000_000, 1000)
_SCALE = 0.02


class Call(NamedTuple):
    """A call to be timed.

    Attributes:
        images: that it works on; None where it works on none.
        fields: further fields of its row.
    """

    function: Callable[[], Any]
    images: int | None
    fields: Mapping[str, Any]


class Program(NamedTuple):
    """A jitted function with its arguments, on the devices."""

    jitted: Callable[..., Any]
    arguments: tuple[Any, ...]

    def __call__(self) -> Any:
        return self.jitted(*self.arguments)


class Trainer:
    """Takes training steps one after the other; `state` is the newest."""

    def __init__(
        self, function: StepFunction, frozen: Any, state: TrainState, batches: Iterator[Any]
    ):
        self.function, self.state = function, state
        self._frozen, self._batches = frozen, batches

    def __call__(self) -> Metrics:
        self.state, metrics = self.function(*self.arguments())
        return metrics

    def arguments(self) -> tuple[TrainState, Any, Any]:
        """The next arguments of the step function; takes a batch."""
        return self.state, self._frozen, next(self._batches)


class Subject(Protocol):
    """A detector to be measured; which of the methods exist is what `benchmark_cases` says."""

    mesh: Mesh

    def fields(self) -> dict[str, Any]:
        """Fields of every row."""
        ...

    def host_to_host(self, batch_size: int) -> Call:
        """Images in host memory to maps in host memory, as prediction does it."""
        ...

    def on_device(self, batch_size: int) -> Program:
        """The same with images and maps on the devices."""
        ...

    def per_model(self) -> Call:
        """The computation made once for a trained model: the class bank, or the texts' states."""
        ...

    def trainer(self, batch_size: int) -> tuple[Trainer, dict[str, Any]]:
        """Training steps from the first one, and further fields of their row."""
        ...


def random_arrays(shapes: Any, sharding: Sharding | Any, seed: int = 0) -> Any:
    """Arrays for a tree of shapes: small normal numbers, zeros for integers.

    Args:
        sharding: of all leaves, or a tree of one for each.
    """
    rng = np.random.default_rng(seed)

    def draw(leaf):
        if not np.issubdtype(leaf.dtype, np.floating):
            return np.zeros(leaf.shape, leaf.dtype)
        return rng.standard_normal(leaf.shape, np.float32) * np.float32(_SCALE)

    return jax.device_put(jax.tree.map(draw, shapes), sharding)


def divisible(batch_size: int, mesh: Mesh) -> int:
    """The batch size, rounded up to a multiple of the devices."""
    return -(-batch_size // mesh.size) * mesh.size
