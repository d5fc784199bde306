"""Words to token ids: prompts with room for learnt tokens, or hand-written phrases."""

from typing import NamedTuple

import numpy as np

from promptmad_jax.clip.tokenizer import Tokenizer, pad_rows, rounded_length, tokenize
from promptmad_jax.models.zero_shot.config import DapoConfig
from promptmad_jax.prompts.hand_written import written_phrases
from promptmad_jax.runtime.errors import UserError

_ROOM = "x"  # stands where the learnt tokens go
_OPENAI_PADDING = 0


class PromptTokens(NamedTuple):
    """The texts of K + 1 states, the normal one first.

    Attributes:
        ids: int32 [R, L], start token, text, end token, padding.
        end: int32 [R], where the end token stands.
        shares: float32 [K + 1, R], the weights of a state's texts, sum 1; None for learnt prompts,
            where R is K + 1.
    """

    ids: np.ndarray
    end: np.ndarray
    shares: np.ndarray | None


def prompt_tokens(
    config: DapoConfig,
    tokenizer: Tokenizer,
    context: int,
    defects: tuple[str, ...],
    object_name: str,
) -> PromptTokens:
    """The texts that `config` wants for these defect types.

    Args:
        context: tokens that the text tower reads.
        defects: K defect types in words, e.g. ("scratch", "missing cap").
        object_name: what they are on; DAPO's protocol says "object" of everything.

    Raises:
        UserError: no defects, one that is empty or stands twice, or one that is too long.
    """
    _check(defects)
    if not config.learns_text:
        return _written(tokenizer, context, written_phrases(defects, object_name))
    texts = [config.normal_words.format(object=object_name)]
    texts += [config.defect_words.format(defect=word, object=object_name) for word in defects]
    room = tokenizer.encode(_ROOM)[:1] * config.prompt_tokens
    rows = [[tokenizer.start, *room, *tokenizer.encode(text), tokenizer.end] for text in texts]
    for row, text in zip(rows, texts, strict=True):
        if len(row) > context:
            raise UserError(
                f"the text encoder reads {context} tokens and the prompt for {text!r} has "
                f"{len(row)}; say it shorter"
            )
    length = context if config.compat else rounded_length(rows, context)
    padding = _OPENAI_PADDING if config.compat else tokenizer.end
    end = np.asarray([len(row) - 1 for row in rows], np.int32)
    return PromptTokens(pad_rows(rows, length, padding), end, None)


def _check(defects: tuple[str, ...]) -> None:
    if not defects:
        raise UserError("no defect types; name at least one, for example scratch")
    for index, word in enumerate(defects):
        if not word.strip():
            raise UserError(f"defect type {index + 1} of {len(defects)} is empty")
        if word in defects[:index]:
            raise UserError(f"the defect type {word!r} stands twice")


def _written(
    tokenizer: Tokenizer, context: int, states: tuple[tuple[str, ...], ...]
) -> PromptTokens:
    ids = tokenize(tokenizer, tuple(phrase for group in states for phrase in group), context)
    shares = np.zeros((len(states), len(ids)), np.float32)
    start = 0
    for row, group in zip(shares, states, strict=True):
        row[start : start + len(group)] = 1 / len(group)
        start += len(group)
    return PromptTokens(ids, (ids == tokenizer.end).argmax(1).astype(np.int32), shares)
