"""The processes that evaluate together: those of the run."""

from promptmad_jax.runtime.processes import (
    ALONE,
    Alone,
    Communicator,
    JaxProcesses,
    agree,
    gather_objects,
    jointly,
    this_run,
)

__all__ = (
    "ALONE",
    "Alone",
    "Communicator",
    "JaxProcesses",
    "agree",
    "gather_objects",
    "jointly",
    "this_run",
)
