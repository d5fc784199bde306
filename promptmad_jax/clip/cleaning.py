"""Text as CLIP's tokenizer reads it: repaired, unescaped, on one line, in lower case."""

import html

import ftfy


def clean(text: str) -> str:
    """What the byte pairs are made of; plain text only loses case and extra spaces.

    As CLIP's authors do it, with the same library, since the models learnt from such texts.
    """
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()
