"""Byte-pair encoding written from its description, to compare with: slow, plain, another way round.

The product looks for the pair of the lowest rank again and again; here every merge is applied once,
in the order in which they were learnt. Words are split by character classes, without a regular
expression.
"""

import unicodedata
from collections import Counter
from itertools import pairwise

CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
# Between words and in none: the original ignores case, and then takes the combining iota, whose
# upper case is a letter, neither for a letter nor for another character.
LOST = "\u0345"


def symbols_of_bytes():
    """Byte to a printable character, as GPT-2 has it."""
    printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    hidden = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(hidden)}


BYTES = symbols_of_bytes()


def kind(character):
    if character == LOST:
        return "lost"
    category = unicodedata.category(character)[0]
    return category if category in "LN" else ("space" if character.isspace() else "other")


def split(text):
    """Words of a lower-case text."""
    words, at = [], 0
    while at < len(text):
        # The original ignores case, also that of the long s.
        units = (*SPECIAL, *CONTRACTIONS)
        fixed = [unit for unit in units if text[at : at + len(unit)].casefold() == unit]
        size = len(fixed[0]) if fixed else 1
        if not fixed and kind(text[at]) in ("L", "other"):
            while at + size < len(text) and kind(text[at + size]) == kind(text[at]):
                size += 1
        if kind(text[at]) not in ("space", "lost"):
            words.append(text[at : at + size])
        at += size
    return words


def spell(word):
    symbols = [BYTES[byte] for byte in word.encode()]
    return [*symbols[:-1], symbols[-1] + "</w>"]


def merge(symbols, pair):
    result, at = [], 0
    while at < len(symbols):
        if tuple(symbols[at : at + 2]) == pair:
            result.append("".join(pair))
            at += 2
        else:
            result.append(symbols[at])
            at += 1
    return result


def learn(text, count):
    """The `count` merges that byte-pair encoding learns from a text."""
    words, merges = [spell(word) for word in split(text)], []
    for _ in range(count):
        pairs = Counter(pair for word in words for pair in pairwise(word))
        merges.append(max(pairs, key=lambda pair: (pairs[pair], pair)))
        words = [merge(word, merges[-1]) for word in words]
    return merges


def encode(text, merges):
    """Symbols of a lower-case text."""
    result = []
    for word in split(text):
        symbols = [word] if word in SPECIAL else spell(word)
        for pair in merges if len(symbols) > 1 else ():
            symbols = merge(symbols, pair)
        result += symbols
    return result
