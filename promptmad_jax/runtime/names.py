"""Names of classes, defect types and files, as people spell them."""

import difflib
import unicodedata
from collections.abc import Iterable


def matching(name: str) -> str:
    """The form in which two spellings of one name agree: Unicode normalised, case folded."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is spelled most like `name`; "" if none is known."""
    spellings = {matching(other): other for other in known}
    near = difflib.get_close_matches(matching(name), spellings, 1, 0.0)
    return spellings[near[0]] if near else ""
