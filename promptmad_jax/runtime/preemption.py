"""The notice that this machine is about to be taken away, and how a run answers it."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils

from promptmad_jax.runtime.console import warn

# EX_TEMPFAIL of sysexits.h, "try again later": whoever launched the run starts the same command
# again, which goes on where this one stopped.
REQUEUE_STATUS = 75

# Clouds, Kubernetes and Slurm send SIGTERM before they kill; Slurm's --signal=USR1@60 comes first.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preempted(SystemExit):
    """Leaves the program with `REQUEUE_STATUS`."""

    def __init__(self):
        super().__init__(REQUEUE_STATUS)


class Preemption:
    """Turns SIGTERM and SIGUSR1 into an orderly end; a context manager of the main thread.

    A process alone leaves at once by `Preempted`, wherever it is, except inside `held`: there the
    signal waits for the next call of `reached`.

    With several processes JAX's own service hears SIGTERM, on whichever of them, and lets `reached`
    be true on all of them after the same step; a signal outside the training loop waits.
    """

    def __init__(self):
        self._several = jax.process_count() > 1
        self._noticed = False
        self._held = False
        self._calls = 0
        self._before = {}

    def __enter__(self) -> "Preemption":
        if self._several:
            # The service has put its own handler on SIGTERM.
            self._before = {signal.SIGUSR1: signal.signal(signal.SIGUSR1, _pass_on)}
        else:
            self._before = {number: signal.signal(number, self._notice) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is Preempted:
            warn(f"told to stop; the same command goes on (exit status {REQUEUE_STATUS})")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Signals wait inside; one that nobody asked for raises `Preempted` at the end."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before
        self._leave_if_noticed()

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Inside `held`: signals raise `Preempted` at once again, for work that loses nothing."""
        before, self._held = self._held, False
        try:
            self._leave_if_noticed()
            yield
        finally:
            self._held = before

    def reached(self) -> bool:
        """Whether to stop after this step: to be asked after every step, once, by every process."""
        if not self._several:
            return self._noticed
        # Counted from the start of the loop, as the service does.
        self._calls += 1
        return multihost_utils.reached_preemption_sync_point(self._calls)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        first, self._noticed = not self._noticed, True
        # A second signal must not break into what the first one set off.
        if first:
            self._leave_if_noticed()

    def _leave_if_noticed(self) -> None:
        if self._noticed and not self._held:
            raise Preempted


def _pass_on(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
