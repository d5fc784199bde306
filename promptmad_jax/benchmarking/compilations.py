"""How many programs XLA compiles, and how long that takes, by JAX's own account."""

from jax import monitoring

_COMPILED = "/jax/core/compile/backend_compile_duration"
_PREPARED = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
)


class Compilations:
    """Counts within a `with` block.

    Attributes:
        count: programs that were compiled, or fetched from the persistent cache.
        seconds: spent by XLA on them. prepare_seconds: by JAX on tracing and lowering.
    """

    def __init__(self):
        self.count, self.seconds, self.prepare_seconds = 0, 0.0, 0.0

    def __enter__(self) -> "Compilations":
        monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *exception: object) -> None:
        monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, seconds: float, **details: object) -> None:
        del details
        if event == _COMPILED:
            self.count += 1
            self.seconds += seconds
        elif event in _PREPARED:
            self.prepare_seconds += seconds
