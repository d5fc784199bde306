"""Ends a process after a failure, alone or as one of several."""

import contextlib
import os
import sys
import time
from typing import NoReturn

USER_ERROR_STATUS = 2

# Time for the others to report before process 0, the coordinator, ends.
_LAST_WORDS_SECONDS = 2.0

_place: tuple[int, int] | None = None


def joined(index: int, count: int) -> None:
    """Records that this is process `index` of `count`."""
    global _place
    _place = (index, count) if count > 1 else None


def process_name() -> str:
    """Returns "process 2 of 4", or "" for the only process."""
    return "" if _place is None else f"process {_place[0]} of {_place[1]}"


def leave(status: int) -> NoReturn:
    """Ends this process after a failure.

    One of several ends at once, since an orderly exit would wait for the others, which wait for
    this one. They notice after `--heartbeat_timeout` at the latest.
    """
    if _place is None:
        sys.exit(status)
    if _place[0] == 0:
        time.sleep(_LAST_WORDS_SECONDS)
    leave_at_once(status)


def leave_at_once(status: int) -> NoReturn:
    """Ends this process, from any thread, without waiting for its other threads."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
