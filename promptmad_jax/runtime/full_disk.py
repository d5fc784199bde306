"""Names the file that a disk refused to write."""

import errno
import io
import os
import traceback
from types import TracebackType

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
# How libraries in C++ report it, with the file in their text.
_TEXTS = tuple(map(os.strerror, _REFUSALS[:3]))
# NumPy's own words, without a number, for an array that was not written whole.
_NUMPY = "requested and"


def refused_write(error: BaseException | None) -> str | None:
    """Describes what a disk refused to write; None for an error of another origin."""
    while error is not None:
        text = " ".join(str(error).split())
        if isinstance(error, OSError):
            numpy = error.errno is None and _NUMPY in text
            if numpy or error.errno in _REFUSALS:
                file = error.filename2 or error.filename or _open_file(error.__traceback__)
                return _message(file, "the disk is full" if numpy else error.strerror)
        elif any(words in text for words in _TEXTS):
            return _message(None, text)
        error = error.__cause__ or error.__context__
    return None


def _message(file: str | None, reason: str) -> str:
    return f"{file or 'a file'} cannot be written ({reason}): make room, or use another disk"


def _open_file(trace: TracebackType | None) -> str | None:
    """The file that was open where the error was raised: a failed write does not name it."""
    for frame, _ in reversed(list(traceback.walk_tb(trace))):
        for value in frame.f_locals.values():
            if isinstance(value, io.IOBase) and isinstance(getattr(value, "name", None), str):
                return value.name
    return None
