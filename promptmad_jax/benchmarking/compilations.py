"""Compile times of XLA, from JAX's monitoring events."""

import contextlib
from collections.abc import Iterator

from jax import monitoring

_COMPILED = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def compile_times() -> Iterator[list[float]]:
    """Lists the seconds of each program that the block compiles or fetches from the cache."""
    times: list[float] = []

    def listen(event: str, seconds: float, **_: object) -> None:
        if event == _COMPILED:
            times.append(seconds)

    monitoring.register_event_duration_secs_listener(listen)
    try:
        yield times
    finally:
        monitoring.unregister_event_duration_listener(listen)
