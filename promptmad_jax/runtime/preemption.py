"""Orderly end of a run whose machine is about to be taken away."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

from promptmad_jax.runtime.console import warn

# EX_TEMPFAIL of sysexits.h, "try again later": the launcher starts the same command again, which
# resumes.
REQUEUE_STATUS = 75

# Clouds, Kubernetes and Slurm send SIGTERM before they kill; Slurm's --signal=USR1@60 comes first.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preempted(SystemExit):
    """Ends the program with `REQUEUE_STATUS`."""

    def __init__(self):
        super().__init__(REQUEUE_STATUS)


class Preemption:
    """Turns SIGTERM and SIGUSR1 into an orderly end; a context manager of the main thread.

    In a single process a signal raises `Preempted` at once, except inside `held`, where it waits
    for the next call of `reached`.

    With several processes JAX's own service receives SIGTERM on any of them, and `reached` turns
    true on all after the same step; a signal outside the training loop waits.
    """

    def __init__(self):
        self._several = jax.process_count() > 1
        self._noticed = False
        self._held = False
        self._calls = 0
        self._before = {}

    def __enter__(self) -> "Preemption":
        if self._several:
            # SIGTERM has the service's own handler.
            self._before = {signal.SIGUSR1: signal.signal(signal.SIGUSR1, _pass_on)}
        else:
            self._before = {number: signal.signal(number, self._notice) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is Preempted:
            warn(f"stopped by a signal; run the same command to resume (status {REQUEUE_STATUS})")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Delays signals; one that `reached` has not reported raises `Preempted` at the end."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before
        self._leave_if_noticed()

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Inside `held`, lets signals raise `Preempted` at once, for work that can be repeated."""
        before, self._held = self._held, False
        try:
            self._leave_if_noticed()
            yield
        finally:
            self._held = before

    def reached(self) -> bool:
        """Returns True to stop after this step; every process calls it once after each step."""
        if not self._several:
            return self._noticed
        # The service counts from the start of the loop, too.
        self._calls += 1
        return multihost_utils.reached_preemption_sync_point(self._calls)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        first, self._noticed = not self._noticed, True
        # A second signal must not interrupt what the first one has started.
        if first:
            self._leave_if_noticed()

    def _leave_if_noticed(self) -> None:
        if self._noticed and not self._held:
            raise Preempted


def _pass_on(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
