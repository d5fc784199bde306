"""Requests to stop: Ctrl-C, SIGTERM, a closed terminal, a closed pipe.

Python runs a signal's handler in the main thread, and only between two of its instructions: not
while a compiler works. A thread of this module hears every signal at once.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, NoReturn

from promptmad_jax.runtime.process_exit import leave_at_once, process_name

NAMES = {
    signal.SIGINT: "Ctrl-C",
    signal.SIGTERM: "SIGTERM",
    signal.SIGUSR1: "SIGUSR1",
    signal.SIGHUP: "the end of the terminal",
    signal.SIGPIPE: "a closed pipe",
}
# EX_TEMPFAIL of sysexits.h, "try again later": the launcher starts the same command again, which
# resumes.
REQUEUE_STATUS = 75
_REQUEUED = (signal.SIGTERM, signal.SIGUSR1)
_NOTICE_SECONDS = 2.0  # A computation that does not let the handler run for so long is announced.
_PATIENCE_SECONDS = 10.0
_ECHO_SECONDS = 0.5  # Wrappers pass Ctrl-C on to a process that has had it from the terminal.

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_heard = threading.Event()
_listening = _tidying = False
_on_stop: Callable[[int], None] | None = None


class Interrupted(KeyboardInterrupt):
    """A signal asked a command to stop that has nothing to save.

    Attributes:
        status: the exit status, 128 and the number of the signal.
    """

    def __init__(self, number: int):
        super().__init__(f"interrupted by {NAMES[number]}; the same command starts again")
        self.status = 128 + number


class Preempted(SystemExit):
    """A signal asked a training to stop, which the same command resumes."""

    def __init__(self, number: int, where: str = ""):
        super().__init__(REQUEUE_STATUS if number in _REQUEUED else 128 + number)
        self.message = (
            f"stopped by {NAMES[number]}{where}; run the same command to resume "
            f"(status {self.code})"
        )


def listen() -> None:
    """Handles the signals from here on; for the main thread, once per process.

    They end the process at once, except inside `tidied_up` and `stopping_by`: an exception that is
    raised while modules are imported can be lost.
    """
    global _listening
    if _listening:
        return
    _listening = True
    handle(_STOPPING)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_hear, args=(reader,), daemon=True).start()


def handle(numbers: Iterable[int]) -> dict[int, Any]:
    """Installs this module's handler; returns those that were there before."""
    # nohup ignores the end of the terminal.
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    wanted = [n for n in numbers if n != signal.SIGHUP or not ignored]
    return {number: signal.signal(number, _handle) for number in wanted}


def pipe_closed() -> None:
    """Stops as a signal would: nobody reads the standard output any more.

    Raises:
        BrokenPipeError: the command has nothing to save.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())
    if _on_stop is None:
        raise BrokenPipeError
    _on_stop(signal.SIGPIPE)


@contextlib.contextmanager
def tidied_up() -> Iterator[None]:
    """Inside, signals raise `Interrupted`, for work that leaves something to tidy up."""
    global _tidying
    before, _tidying = _tidying, True
    try:
        yield
    finally:
        _tidying = before


@contextlib.contextmanager
def stopping_by(on_stop: Callable[[int], None]) -> Iterator[None]:
    """Calls `on_stop` with the number of a signal in place of raising `Interrupted`."""
    global _on_stop
    before, _on_stop = _on_stop, on_stop
    try:
        yield
    finally:
        _on_stop = before


def _handle(number: int, frame: FrameType | None) -> None:
    first = not _heard.is_set()
    _heard.set()
    if _on_stop is not None:
        _on_stop(number)
    elif not _tidying:
        _leave(number)
    elif first:  # A further one must not disturb the tidying up.
        raise Interrupted(number)


def _leave(number: int) -> NoReturn:
    _say(str(Interrupted(number)))
    leave_at_once(128 + number)


def _hear(reader: int) -> None:
    """Announces, and if need be ends, what does not stop by itself."""
    presses = 0
    last = 0.0
    while True:
        for number in os.read(reader, 64):
            if number not in _STOPPING:
                continue
            if number == signal.SIGINT and time.monotonic() - last > _ECHO_SECONDS:
                presses += 1
                last = time.monotonic()
            if presses > 1:
                _say("ended at once by the second Ctrl-C")
                leave_at_once(128 + signal.SIGINT)
            threading.Thread(target=_see_to_the_end, args=(number,), daemon=True).start()


def _see_to_the_end(number: int) -> None:
    if not _heard.wait(_NOTICE_SECONDS):
        if _on_stop is None and not _tidying:
            _leave(number)
        _say(f"{NAMES[number]}: waiting for the running computation; Ctrl-C again ends at once")
    time.sleep(_PATIENCE_SECONDS)
    if _on_stop is None:
        _leave(number)


def _say(message: str) -> None:
    where = process_name()
    with contextlib.suppress(OSError):
        print(f"{where}: {message}" if where else message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def quiet_pipe() -> Iterator[None]:
    """Ends the process without a word if nobody reads its standard output, as `| head` does."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        leave_at_once(128 + signal.SIGPIPE)
