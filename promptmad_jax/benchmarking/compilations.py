"""Programs that XLA compiles and the time they take, from JAX's monitoring events."""

from jax import monitoring

_COMPILED = "/jax/core/compile/backend_compile_duration"


class Compilations:
    """Counts compilations within a `with` block.

    Attributes:
        count: programs compiled, or fetched from the persistent cache.
        seconds: time XLA spent on them.
    """

    def __init__(self):
        self.count, self.seconds = 0, 0.0

    def __enter__(self) -> "Compilations":
        monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *exception: object) -> None:
        monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, seconds: float, **_: object) -> None:
        if event == _COMPILED:
            self.count += 1
            self.seconds += seconds
