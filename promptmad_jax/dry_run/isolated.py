"""A process of its own for a compiler that may take all of the machine's memory."""

import multiprocessing
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from promptmad_jax.runtime.errors import UserError

_MEMORY = Path("/proc/meminfo")
_GIB = 2**30


def run_isolated(function: Callable[..., None], *arguments: Any) -> None:
    """Calls a function of a module in a new process with as much memory as is available now.

    Raises:
        UserError: that of the function; or the process ended, probably for lack of memory.
    """
    limit = _available()
    context = multiprocessing.get_context("spawn")
    received, sent = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sent, limit, function, arguments))
    process.start()
    sent.close()
    try:
        message = received.recv()
    except EOFError:
        message = None
    process.join()
    if message:
        raise UserError(message)
    if process.exitcode:
        raise UserError(
            f"the compiler's process ended with {_reason(process.exitcode)}, probably because it "
            f"needs more than the {limit / _GIB:.0f} GiB of memory that are free here"
        )


def _call(sent: Connection, limit: int, function: Callable[..., None], arguments: tuple) -> None:
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        function(*arguments)
    except UserError as error:
        sent.send(str(error))
    except MemoryError:
        raise SystemExit(1) from None
    else:
        sent.send("")


def _available() -> int:
    """Bytes of memory that processes can still take; 0 where the system does not tell."""
    if not _MEMORY.exists():
        return 0
    fields = dict(line.split(":", 1) for line in _MEMORY.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def _reason(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"status {status}"
