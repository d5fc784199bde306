"""Ends a process after a failure, alone or as one of several."""

import os
import sys
import time
from typing import NoReturn

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
    sys.stdout.flush()
    sys.stderr.flush()
    if _place[0] == 0:
        time.sleep(_LAST_WORDS_SECONDS)
    os._exit(status)
