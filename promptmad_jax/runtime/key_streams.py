"""Named streams of random keys for modules, counted outside the traced program."""

import functools
from collections.abc import Callable

import jax


class KeyStreams:
    """Draws the keys that `nnx.Rngs` would draw: the n-th of a stream is `fold_in(its key, n)`.

    nnx counts n in a traced array and asks for its sharding. For a tracer JAX answers with an error
    message about the whole program so far, which took three quarters of the time to trace an
    initialization and a quarter of that for a training step.
    """

    def __init__(self, default: jax.Array | int | None = None, **streams: jax.Array):
        """Uses `default`, a key or a seed, for streams that are not named."""
        if default is not None:
            streams["default"] = jax.random.key(default) if isinstance(default, int) else default
        self._keys, self._drawn = streams, dict.fromkeys(streams, 0)

    def __getattr__(self, name: str) -> Callable[[], jax.Array]:
        """Returns the function that draws the next key of a stream."""
        if name.startswith("_"):
            raise AttributeError(name)
        stream = name if name in self._keys else "default"
        if stream not in self._keys:
            raise AttributeError(f"no stream of keys {name!r} and no default")
        return functools.partial(self._draw, stream)

    def _draw(self, stream: str) -> jax.Array:
        number, self._drawn[stream] = self._drawn[stream], self._drawn[stream] + 1
        return jax.random.fold_in(self._keys[stream], number)
