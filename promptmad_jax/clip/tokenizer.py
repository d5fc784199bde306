"""CLIP's tokenizer, transformers' `CLIPTokenizer`, from a model's files or over single bytes."""

import gzip
import json
import os
import zlib
from pathlib import Path

import numpy as np
from absl import logging

from promptmad_jax.runtime.errors import UserError

START, END = "<|startoftext|>", "<|endoftext|>"
OPENAI_FILE = "bpe_simple_vocab_16e6.txt.gz"
_OPENAI_MERGES = 49152 - 256 - 2  # CLIP uses this many of the file's merges
# The characters that stand for the 256 bytes, in the order of OpenAI's ids.
_BYTES = [chr(code) for code in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x144))]
_ROUND = 16  # token lengths are multiples of this, which keeps the number of compiled shapes low

Merges = list[tuple[str, str]]


class Tokenizer:
    """Text to token ids.

    Attributes:
        start, end: ids of the tokens around a text.
        backend: transformers' tokenizer, for what only it can do (`save_pretrained`).

    Raises:
        ValueError: START, END or the result of a merge has no id in the vocabulary.
    """

    def __init__(self, vocabulary: dict[str, int], merges: Merges):
        # Importing takes about a second, and would warn that PyTorch is missing.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        from transformers import CLIPTokenizer

        for token in (START, END):
            if token not in vocabulary:
                raise ValueError(f"no id for {token}")
        self.start, self.end = vocabulary[START], vocabulary[END]
        try:
            # unk_token=None: text that the vocabulary cannot spell is an error, not an end token.
            self.backend = CLIPTokenizer(vocab=vocabulary, merges=merges, unk_token=None)
        except Exception as error:  # tokenizers raises nothing narrower
            raise ValueError(str(error)) from error

    def __len__(self) -> int:
        return len(self.backend)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without the start and the end token.

        Raises:
            UserError: the vocabulary lacks a symbol of the text, which CLIP's own never does.
        """
        try:
            return self.backend.encode(text, add_special_tokens=False)
        except Exception as error:  # tokenizers raises nothing narrower
            raise UserError(
                f"the tokenizer's vocabulary cannot spell {text!r} ({error}); take the tokenizer "
                "files of a whole CLIP model"
            ) from error


def load_tokenizer(path: Path, merges: Path | None = None) -> Tokenizer:
    """Reads a tokenizer from a model's files.

    Args:
        path: vocab.json, with `merges`; or, alone, tokenizer.json or OpenAI's and open_clip's
            bpe_simple_vocab_16e6.txt.gz.
        merges: merges.txt.

    Raises:
        UserError: a file cannot be read or lacks a part.
    """
    try:
        if path.suffix == ".gz":
            return from_merges(_pairs(gzip.decompress(path.read_bytes()).decode("utf-8")))
        table = json.loads(path.read_text(encoding="utf-8"))
        if merges is not None:
            return Tokenizer(table, _pairs(merges.read_text(encoding="utf-8")))
        pairs = [tuple(p.split(" ") if isinstance(p, str) else p) for p in table["model"]["merges"]]
        return Tokenizer(table["model"]["vocab"], pairs)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        files = path if merges is None else f"{path} with {merges.name}"
        raise UserError(
            f"{files} is not CLIP's tokenizer ({error!r}); "
            "fetch the tokenizer files of the model again"
        ) from error


def _pairs(text: str) -> Merges:
    """The merges of a text that holds one per line, usually below a line with the version."""
    lines = text.split("\n")
    return [tuple(line.split()) for line in lines["#version" in lines[0] :] if line.strip()]


def from_merges(merges: Merges) -> Tokenizer:
    """A tokenizer with OpenAI's ids: bytes, bytes at the end of a word, merges, special tokens."""
    merges = merges[:_OPENAI_MERGES]
    symbols = [*_BYTES, *(f"{symbol}</w>" for symbol in _BYTES), *map("".join, merges), START, END]
    return Tokenizer({symbol: i for i, symbol in enumerate(symbols)}, merges)


def byte_tokenizer() -> Tokenizer:
    """A tokenizer of single bytes, each with and without the end-of-word mark: 514 tokens."""
    return from_merges([])


def tokenize(tokenizer: Tokenizer, phrases: tuple[str, ...], context: int) -> np.ndarray:
    """Token ids of phrases, int32 [N, L]: start, tokens, end, then end tokens as padding.

    L is the longest phrase's length rounded up to a multiple of 16, at most `context`. A longer
    phrase is cut, as CLIP does, and a warning names it.
    """
    rows = [[tokenizer.start, *tokenizer.encode(phrase), tokenizer.end] for phrase in phrases]
    for phrase, row in zip(phrases, rows, strict=True):
        if len(row) > context:
            logging.warning(
                "the text encoder reads %d tokens; the end of this phrase is cut: %s",
                context,
                phrase,
            )
            row[context - 1 :] = [tokenizer.end]
    return pad_rows(rows, rounded_length(rows, context), tokenizer.end)


def rounded_length(rows: list[list[int]], context: int) -> int:
    """The longest row's length, rounded up to a multiple of 16, at most `context`."""
    return min(-(-max(map(len, rows)) // _ROUND) * _ROUND, context)


def pad_rows(rows: list[list[int]], length: int, fill: int) -> np.ndarray:
    """Rows of token ids as int32 [N, length], padded with `fill`."""
    ids = np.full((len(rows), length), fill, np.int32)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
    return ids
