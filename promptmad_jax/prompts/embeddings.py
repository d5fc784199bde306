"""Classes to text tokens: phrases, their vectors, one token a state, padded and masked."""

from dataclasses import dataclass

import numpy as np
from absl import logging
from etils import epath

from promptmad_jax.prompts.config import TextConfig
from promptmad_jax.prompts.phrase_vectors import phrase_vectors
from promptmad_jax.prompts.shuffle import deranged
from promptmad_jax.prompts.vocabulary import ClassPhrases, find_classes
from promptmad_jax.runtime.errors import UserError


@dataclass(frozen=True)
class TextTokens:
    """Text tokens of C classes, at most T a class, of width d.

    Attributes:
        tokens: float32 [C, T, d]; unit vectors: token 0 is the normal state, then one a defect
            type; zeros where `mask` is false.
        mask: bool [C, T], true on tokens that exist.
        names: for each class its states, ("normal", defect type, ...), as long as its tokens.
        sources: for each class where its words are from: `user`, `shipped` or `generic`.
    """

    tokens: np.ndarray
    mask: np.ndarray
    names: tuple[tuple[str, ...], ...]
    sources: tuple[str, ...]


def encode_classes(
    config: TextConfig, class_names: tuple[str, ...], cache_dir: epath.PathLike | None
) -> TextTokens:
    """Text tokens of the classes, in their order.

    With `control=shuffled` the result depends on the whole list of classes, so a model must always
    be given the list it was trained with.

    Args:
        config: see `TextConfig`.
        class_names: the data set's class names.
        cache_dir: keeps the vectors of encoded phrases; None for no cache.

    Raises:
        UserError: a malformed vocabulary, weights that are missing or do not fit, a phrase without
            a vector, or nothing to shuffle.
    """
    classes = find_classes(tuple(class_names), config.vocabulary, config.defects)
    for name, words in zip(class_names, classes, strict=True):
        logging.info("text of class %s: %s words, %d states", name, words.source, len(words.states))
    phrases = tuple(
        dict.fromkeys(phrase for words in classes for _, group in words.states for phrase in group)
    )
    vectors = _unit(phrase_vectors(config, phrases, cache_dir))
    by_phrase = dict(zip(phrases, vectors, strict=True))
    states = [np.stack([_pool(by_phrase, group) for _, group in words.states]) for words in classes]
    if config.control == "shuffled":
        states = _shuffle(states, classes, config.seed)
    tokens, mask = _pad(states)
    names = tuple(tuple(state for state, _ in words.states) for words in classes)
    return TextTokens(tokens, mask, names, tuple(words.source for words in classes))


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _pool(by_phrase: dict[str, np.ndarray], phrases: tuple[str, ...]) -> np.ndarray:
    """The unit vector [d] along the mean of the phrases' unit vectors."""
    return _unit(np.mean([by_phrase[phrase] for phrase in phrases], axis=0))


def _shuffle(
    states: list[np.ndarray], classes: tuple[ClassPhrases, ...], seed: int
) -> list[np.ndarray]:
    # Classes of one object (four circuit boards) share words, so they count as one.
    groups = [words.name for words, tokens in zip(classes, states, strict=True) for _ in tokens]
    if len(groups) < 2:
        raise UserError(
            "text.control=shuffled needs at least two text tokens; describe a defect "
            f"of {classes[0].class_name} or train more classes"
        )
    order = deranged(groups, np.random.default_rng(seed))
    ends = np.cumsum([len(tokens) for tokens in states])
    return np.split(np.concatenate(states)[order], ends[:-1])


def _pad(states: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    length, width = max(map(len, states)), states[0].shape[1]
    tokens = np.zeros((len(states), length, width), np.float32)
    mask = np.zeros((len(states), length), bool)
    for row, vectors in enumerate(states):
        tokens[row, : len(vectors)] = vectors
        mask[row, : len(vectors)] = True
    return tokens, mask
