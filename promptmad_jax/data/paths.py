"""File names as text, and class names as file names."""

import os
import unicodedata


def printable(path: os.PathLike[str] | str) -> str:
    """A path as valid Unicode with forward slashes; bytes that are no UTF-8 are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return text.replace(os.sep, "/")


def name_fault(name: str) -> str:
    """Says why a class cannot have this name; "" if it can."""
    if "/" in name or name in ("", ".", ".."):
        return f"a class cannot be called {name!r}: that is a path"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        return f"a class cannot be called {name!r}: that holds control characters"
    return ""
