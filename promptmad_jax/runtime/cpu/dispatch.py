"""Calls of one program whose intermediate arrays a CPU is to hold once."""

from typing import Any

import jax

from promptmad_jax.runtime.cpu.memory import FIRST_CALLS, hand_back_unused


def compute_in_this_thread() -> None:
    """Has JAX run what a single CPU device computes in the thread that calls it: to be called
    before JAX's first use of a device.

    A thread of JAX's own frees a program's intermediate arrays some time after its results are
    there: on a busy machine later than the next call allocates its own, which then stay with the
    process besides. The thread that calls has freed them when the call returns. What several CPU
    devices compute together JAX leaves to its threads all the same.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


class Calls:
    """What a program that is called again and again needs around its calls.

    On a CPU a call that waits for its turn has its intermediate arrays already, for a training step
    at full size a gigabyte; and what the first calls leave behind keeps later ones from the first
    one's place in memory (`heap.hand_back_unused`). Elsewhere calls are queued as JAX does it.
    """

    def __init__(self):
        self._one_at_a_time = jax.default_backend() == "cpu"
        self._count, self._results = 0, None

    def wait(self) -> None:
        """Until the last call's results are there, on a CPU. What comes between this and the next
        call is the time in which its intermediate arrays are freed."""
        if self._one_at_a_time:
            jax.block_until_ready(self._results)

    def made(self, results: Any) -> None:
        """To be told of every call, with what it gave. Where `heap` keeps what is freed, this waits
        for the first calls' results and 0.1 s more, and hands memory back."""
        self._results = results
        self._count += 1
        if self._count <= FIRST_CALLS:
            hand_back_unused(results)
