"""Text as CLIP's tokenizer reads it: repaired, unescaped, on one line, in lower case.

The original repairs a text with the library ftfy before anything else, and models learnt from such
texts. Here are its rules but one: HTML entities, terminal colours, C1 controls as Windows-1252,
ligatures, full and half width, curly quotes, surrogates, control characters, NFC. Its repair of
text that was decoded with the wrong encoding ("Ã©" for "é") is not here; who needs it gives
`Tokenizer` a `clean` that calls ftfy first.
"""

import html
import re
import unicodedata
from html.entities import html5

_ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,24};")
_TERMINAL = re.compile(r"\x1b\[[\d;]*[A-Za-z]")
_SINGLE_QUOTES = "\u02bc\u2018\u2019\u201a\u201b"
_DOUBLE_QUOTES = "\u201c\u201d\u201e\u201f"
_CONTROLS = (
    *range(0x00, 0x09),
    0x0B,
    *range(0x0E, 0x20),
    0x7F,
    *range(0x206A, 0x2070),
    0xFEFF,
    *range(0xFFF9, 0xFFFD),
)
# Letters of the Latin script that are two; NFKC spells them out.
_LIGATURES = (0x132, 0x133, *range(0x1C4, 0x1CD), *range(0x1F1, 0x1F4), *range(0xFB00, 0xFB07))
_WIDTHS = (0x3000, *range(0xFF01, 0xFFF0))


def _replacements() -> dict[int, str]:
    table = {c: unicodedata.normalize("NFKC", chr(c)) for c in (*_LIGATURES, *_WIDTHS)}
    table |= dict.fromkeys(_CONTROLS, "")
    table |= {ord(c): "'" for c in _SINGLE_QUOTES} | {ord(c): '"' for c in _DOUBLE_QUOTES}
    table |= {c: bytes([c]).decode("cp1252", "ignore") or chr(c) for c in range(0x80, 0xA0)}
    return table | {0x149: "'n", 0xFB05: "\u017ft"}


_REPLACEMENTS = _replacements()


def clean(text: str) -> str:
    """What the byte pairs are made of; ASCII without entities only loses case and extra spaces."""
    text = html.unescape(html.unescape(_repair(text)))
    return " ".join(text.split()).lower()


def _repair(text: str) -> str:
    """Every rule in turn, until nothing changes."""
    markup = "<" in text  # then entities are its author's escapes, and stay for the second pass
    while True:
        fixed = text if markup else _ENTITY.sub(_character, text)
        fixed = _TERMINAL.sub("", _whole_characters(fixed)).translate(_REPLACEMENTS)
        fixed = unicodedata.normalize("NFC", fixed)
        if fixed == text:
            return fixed
        text = fixed


def _character(entity: re.Match[str]) -> str:
    """What an entity stands for; capitals that are none, as in &EACUTE;, are a capital's."""
    whole, name = entity[0], entity[0][1:]
    if name in html5 or name.startswith("#"):
        return html5.get(name) or html.unescape(whole)
    if name.isupper() and html.unescape(whole) == whole:
        return html5.get(name.lower(), whole).upper()
    return whole


def _whole_characters(text: str) -> str:
    """Surrogates joined where they are a pair, else replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
