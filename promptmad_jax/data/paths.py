"""File names as text."""

import os


def printable(path: os.PathLike[str] | str) -> str:
    """A path as valid Unicode with forward slashes; bytes that are no UTF-8 are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return text.replace(os.sep, "/")
