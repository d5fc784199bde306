"""Byte-pair encoding as CLIP has it (after Sennrich et al., 2016, arXiv 1508.07909).

The tokenizers of the transformers library leave out the cleaning, lower letters one by one (so that
a final sigma differs) and find special tokens inside other punctuation.
"""

import functools
from collections.abc import Mapping, Sequence
from itertools import pairwise

import regex

from promptmad_jax.clip.cleaning import clean
from promptmad_jax.runtime.errors import UserError

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
# As CLIP's authors have it, with the same library. It finds U+0345, the combining iota, in no class
# where case is ignored: no word holds it.
_WORDS = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


@functools.cache
def byte_symbols() -> tuple[str, ...]:
    """A printable character for each byte: its own in Latin-1, or one from U+0100 on, in order."""
    own = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in own else next(others)) for byte in range(256))


class Tokenizer:
    """Text to token ids.

    Args:
        vocabulary: the id of every symbol, with the start and the end token.
        merges: pairs of symbols, the first to be merged first.

    Raises:
        ValueError: a special token or the outcome of a merge is not in the vocabulary.
    """

    def __init__(self, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]):
        for symbol in (START, END, *("".join(pair) for pair in merges)):
            if symbol not in vocabulary:
                raise ValueError(f"no id for {symbol!r}")
        self.vocabulary, self.merges = vocabulary, merges
        self.start, self.end = vocabulary[START], vocabulary[END]
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._known = {START: (START,), END: (END,)}

    def __len__(self) -> int:
        return len(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without the start and the end token.

        Raises:
            UserError: the vocabulary lacks a symbol, which CLIP's own never does.
        """
        words = _WORDS.findall(clean(text))
        try:
            return [self.vocabulary[symbol] for word in words for symbol in self._symbols(word)]
        except KeyError as error:
            raise UserError(
                f"the tokenizer's vocabulary has no symbol {error}, which {text!r} needs; take the "
                "tokenizer files of a whole CLIP model"
            ) from error

    def _symbols(self, word: str) -> tuple[str, ...]:
        if word not in self._known:
            symbols = [byte_symbols()[byte] for byte in word.encode()]
            symbols[-1] += WORD_END
            self._known[word] = self._merge(symbols)
        return self._known[word]

    def _merge(self, symbols: list[str]) -> tuple[str, ...]:
        """Merges the pair of the lowest rank, wherever it stands, until no pair has one."""
        while len(symbols) > 1:
            first = min(pairwise(symbols), key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if first not in self._ranks:
                break
            symbols = _joined(symbols, first)
        return tuple(symbols)


def _joined(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    result = []
    for symbol in symbols:
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return result
