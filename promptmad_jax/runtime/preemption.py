"""Orderly end of a training that is asked to stop."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import NoReturn

import jax
from jax.experimental import multihost_utils

from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.interrupts import Preempted, handle, stopping_by

# Clouds, Kubernetes and Slurm send SIGTERM before they kill; Slurm's --signal=USR1@60 comes first.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)


class Preemption:
    """Turns signals into an orderly end; a context manager of the main thread.

    In a single process a signal raises `Preempted` at once, except inside `held`, where it waits
    for the next call of `reached`.

    With several processes JAX's own service receives SIGTERM on any of them, and `reached` turns
    true on all after the same step; a signal outside the training loop waits.
    """

    def __init__(self):
        self._several = jax.process_count() > 1
        self._noticed: int | None = None
        self._held = False
        self._calls = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Preemption":
        # SIGTERM of several processes has the service's own handler.
        numbers = SIGNALS[1:] if self._several else SIGNALS
        self._stack.enter_context(stopping_by(self._notice))
        for number, before in handle(numbers).items():
            self._stack.callback(signal.signal, number, before)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, *details: object) -> None:
        self._stack.close()
        if isinstance(error, Preempted):
            warn(error.message)

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
            return self._noticed is not None
        # The service counts from the start of the loop, too.
        self._calls += 1
        return multihost_utils.reached_preemption_sync_point(self._calls)

    def leave(self, where: str) -> NoReturn:
        """Raises `Preempted`, whose message says at which step."""
        raise Preempted(self._noticed or signal.SIGTERM, where)

    def _notice(self, number: int) -> None:
        first, self._noticed = self._noticed is None, number
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
        # A second signal must not interrupt what the first one has started.
        elif first:
            self._leave_if_noticed()

    def _leave_if_noticed(self) -> None:
        if self._noticed is not None and not self._held and not self._several:
            raise Preempted(self._noticed)
