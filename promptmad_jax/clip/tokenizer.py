"""CLIP's tokenizer from a model's files, or over plain bytes; token ids of phrases."""

import gzip
import json
import zlib
from pathlib import Path

import numpy as np
from absl import logging

from promptmad_jax.clip.byte_pairs import END, START, WORD_END, Tokenizer, byte_symbols
from promptmad_jax.runtime.errors import UserError

OPENAI_FILE = "bpe_simple_vocab_16e6.txt.gz"
_OPENAI_MERGES = 49152 - 256 - 2  # of the file's merges, those that CLIP uses
_ROUND = 16  # token lengths are multiples of this, so that few shapes are compiled


def load_tokenizer(path: Path, merges: Path | None = None) -> Tokenizer:
    """A tokenizer from a model's files.

    Args:
        path: vocab.json beside `merges`; or, alone, a tokenizer.json or the file
            bpe_simple_vocab_16e6.txt.gz of OpenAI and open_clip.
        merges: merges.txt.

    Raises:
        UserError: a file cannot be read or lacks a part.
    """
    try:
        if path.suffix == ".gz":
            return _from_merges(_pairs(gzip.decompress(path.read_bytes()).decode("utf-8")))
        table = json.loads(path.read_text(encoding="utf-8"))
        if merges is not None:
            return Tokenizer(table, _pairs(merges.read_text(encoding="utf-8")))
        pairs = [p.split(" ") if isinstance(p, str) else p for p in table["model"]["merges"]]
        return Tokenizer(table["model"]["vocab"], [_pair(p) for p in pairs])
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        files = path if merges is None else f"{path} with {merges.name}"
        raise UserError(
            f"{files} is not CLIP's tokenizer ({error!r}); "
            "fetch the tokenizer files of the model again"
        ) from error


def _pairs(text: str) -> list[tuple[str, str]]:
    """The merges of a text with one a line, mostly below a line that says the version."""
    lines = text.split("\n")
    if "#version" in lines[0]:
        lines = lines[1:]
    return [_pair(line.split()) for line in lines if line.strip()]


def _pair(symbols: list[str]) -> tuple[str, str]:
    first, second = symbols
    return first, second


def _from_merges(pairs: list[tuple[str, str]]) -> Tokenizer:
    """OpenAI's numbering: bytes, bytes at the end of a word, merges, special tokens."""
    pairs = pairs[:_OPENAI_MERGES]
    return Tokenizer(_numbered(["".join(pair) for pair in pairs]), pairs)


def byte_tokenizer() -> Tokenizer:
    """A tokenizer of single bytes, each with and without the end-of-word mark: 514 tokens."""
    return Tokenizer(_numbered([]), [])


def _numbered(merged: list[str]) -> dict[str, int]:
    alphabet = sorted(byte_symbols())
    ends = [f"{symbol}{WORD_END}" for symbol in alphabet]
    return {symbol: i for i, symbol in enumerate([*alphabet, *ends, *merged, START, END])}


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes vocab.json and merges.txt, as Hugging Face's models have them, into `folder`."""
    table = json.dumps(dict(tokenizer.vocabulary), ensure_ascii=False)
    (folder / "vocab.json").write_text(table, encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in tokenizer.merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")


def tokenize(tokenizer: Tokenizer, phrases: tuple[str, ...], context: int) -> np.ndarray:
    """Token ids, int32 [N, L]: start, tokens, end, then end tokens as padding.

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
    """The longest row's length, up to a multiple of 16, at most `context`."""
    return min(-(-max(map(len, rows)) // _ROUND) * _ROUND, context)


def pad_rows(rows: list[list[int]], length: int, fill: int) -> np.ndarray:
    """Rows of token ids as int32 [N, length], `fill` behind each."""
    ids = np.full((len(rows), length), fill, np.int32)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
    return ids
