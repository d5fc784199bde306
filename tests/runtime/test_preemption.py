"""Signals: at once, at the next step, or passed on to JAX."""

import os
import signal

import jax
import pytest

from promptmad_jax.runtime.interrupts import Preempted
from promptmad_jax.runtime.preemption import Preemption


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def test_outside_the_loop_it_leaves_at_once():
    with pytest.raises(Preempted) as caught, Preemption():
        send()
        pytest.fail("went on")
    assert caught.value.code == 75


def test_inside_the_loop_the_signal_waits_to_be_asked_for():
    with Preemption() as preemption, pytest.raises(Preempted), preemption.held():
        assert not preemption.reached()
        send(signal.SIGUSR1)
        assert preemption.reached() and preemption.reached()


def test_signal_before_work_that_loses_nothing_leaves_there():
    entered = []
    with Preemption() as preemption, pytest.raises(Preempted), preemption.held():
        send()
        with preemption.released():
            entered.append(True)
    assert not entered


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    with Preemption():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before


def test_several_processes_leave_sigterm_to_jax(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
    try:
        with Preemption():
            send(signal.SIGUSR1)
        assert heard == ["SIGTERM"]
    finally:
        signal.signal(signal.SIGTERM, before)
