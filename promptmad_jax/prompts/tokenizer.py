"""CLIP's tokenizer, through transformers: from a model's files, or over plain bytes."""

import json
from pathlib import Path

import numpy as np
from absl import logging
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from promptmad_jax.runtime.errors import UserError

_START, _END = "<|startoftext|>", "<|endoftext|>"
_ROUND = 16  # token lengths are multiples of this, so that few shapes are compiled


def load_tokenizer(vocabulary: Path, merges: Path | None = None) -> CLIPTokenizer:
    """A tokenizer from `vocab.json` and `merges.txt`, or from a `tokenizer.json` alone.

    Raises:
        UserError: a file cannot be read or lacks a part.
    """
    path = vocabulary
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if merges is None:
            table, pairs = table["model"]["vocab"], table["model"]["merges"]
        else:
            path = merges
            pairs = [
                line
                for line in path.read_text(encoding="utf-8").split("\n")
                if line.strip() and not line.startswith("#version")
            ]
        pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in pairs]
        return _build(table, pairs)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a file of CLIP's tokenizer ({error!r}); "
            "fetch the tokenizer files of the model again"
        ) from error


def byte_tokenizer() -> CLIPTokenizer:
    """A tokenizer of single bytes, each with and without the end-of-word mark: 514 tokens."""
    alphabet = sorted(ByteLevel.alphabet())
    words = alphabet + [f"{symbol}</w>" for symbol in alphabet] + [_START, _END]
    return _build({word: index for index, word in enumerate(words)}, [])


def _build(table: dict[str, int], pairs: list[tuple[str, str]]) -> CLIPTokenizer:
    for token in (_START, _END):
        if token not in table:
            raise KeyError(token)
    return CLIPTokenizer(vocab=table, merges=pairs)


def tokenize(tokenizer: CLIPTokenizer, phrases: tuple[str, ...], context: int) -> np.ndarray:
    """Token ids, int32 [N, L]: start, tokens, end, then end tokens as padding.

    L is the longest phrase's length rounded up to a multiple of 16, at most `context`. A longer
    phrase is cut, as CLIP does, and a warning names it.
    """
    rows = tokenizer(list(phrases))["input_ids"]
    end = tokenizer.eos_token_id
    for phrase, row in zip(phrases, rows, strict=True):
        if len(row) > context:
            logging.warning(
                "the text encoder reads %d tokens; the end of this phrase is cut: %s",
                context,
                phrase,
            )
    rows = [row if len(row) <= context else [*row[: context - 1], end] for row in rows]
    length = min(-(-max(map(len, rows)) // _ROUND) * _ROUND, context)
    ids = np.full((len(rows), length), end, np.int32)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
    return ids
