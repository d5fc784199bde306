"""Processes that are threads: they meet at a barrier, as real ones do in a collective."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

WAIT_SECONDS = 30


class Meeting:
    """Holds the arrays of all threads while they exchange them."""

    def __init__(self, count):
        self.arrays = [None] * count
        self.barrier = threading.Barrier(count, timeout=WAIT_SECONDS)


class ThreadProcess:
    """A communicator that stands for one process."""

    def __init__(self, index, meeting):
        self.index, self.count = index, len(meeting.arrays)
        self._meeting = meeting

    def gather(self, values):
        self._meeting.arrays[self.index] = values
        self._meeting.barrier.wait()
        every = [np.copy(array) for array in self._meeting.arrays]
        self._meeting.barrier.wait()
        return every


def run_processes(count, work):
    """The results of `work(communicator)` on each of `count` processes; the first error is raised,
    but not before every process has ended by itself."""
    meeting = Meeting(count)
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(work, ThreadProcess(i, meeting)) for i in range(count)]
    return [future.result() for future in futures]
