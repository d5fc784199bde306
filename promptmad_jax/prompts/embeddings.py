"""Classes to text tokens: phrases, their vectors, one token per state, padded and masked."""

from dataclasses import dataclass

import numpy as np
from etils import epath

from promptmad_jax.prompts.config import TextConfig
from promptmad_jax.prompts.phrase_vectors import phrase_vectors
from promptmad_jax.prompts.shuffle import deranged
from promptmad_jax.prompts.vocabulary import ClassPhrases, find_classes
from promptmad_jax.runtime.errors import UserError


@dataclass(frozen=True)
class TextTokens:
    """Text tokens of C classes, at most T per class, of width d.

    Attributes:
        tokens: float32 [C, T, d], unit vectors: the normal state, then each defect type; zeros
            where `mask` is false.
        mask: bool [C, T], true on tokens that exist.
        names: each class's states, ("normal", defect type, ...), as many as its tokens.
        sources: the origin of each class's words: `user`, `shipped` or `generic`.
    """

    tokens: np.ndarray
    mask: np.ndarray
    names: tuple[tuple[str, ...], ...]
    sources: tuple[str, ...]


def select_tokens(text: TextTokens, classes: list[int]) -> TextTokens:
    """The tokens of some classes, by their places."""
    names, sources = (tuple(values[k] for k in classes) for values in (text.names, text.sources))
    return TextTokens(text.tokens[classes], text.mask[classes], names, sources)


def join_tokens(first: TextTokens, second: TextTokens) -> TextTokens:
    """The classes of both, with as many tokens as the longer."""
    longest = max(text.mask.shape[1] for text in (first, second))

    def padded(array: np.ndarray) -> np.ndarray:
        rest = [(0, 0)] * (array.ndim - 2)
        return np.pad(array, [(0, 0), (0, longest - array.shape[1]), *rest])

    tokens = np.concatenate([padded(first.tokens), padded(second.tokens)])
    mask = np.concatenate([padded(first.mask), padded(second.mask)])
    return TextTokens(tokens, mask, first.names + second.names, first.sources + second.sources)


def encode_classes(
    config: TextConfig, class_names: tuple[str, ...], cache_dir: epath.PathLike | None
) -> TextTokens:
    """Encodes the classes' states, in the order of the classes.

    With `control=shuffled` the result depends on the whole list of classes, so a model must always
    be given the list it was trained with.

    Args:
        cache_dir: keeps the vectors of encoded phrases; None for no cache.

    Raises:
        UserError: a malformed vocabulary, weights that are missing or do not fit, a phrase without
            a vector, or nothing to shuffle.
    """
    classes = find_classes(class_names, config.vocabulary, config.defects)
    groups = [group for words in classes for _, group in words.states]
    phrases = tuple(dict.fromkeys(phrase for group in groups for phrase in group))
    vectors = _unit(phrase_vectors(config, phrases, cache_dir))
    by_phrase = dict(zip(phrases, vectors, strict=True))
    # A state's token is the unit vector along the mean of its phrases' unit vectors.
    states = np.stack([_unit(np.mean([by_phrase[p] for p in group], axis=0)) for group in groups])
    if config.control == "shuffled":
        states = states[_shuffled_order(classes, config.seed)]
    names = tuple(tuple(state for state, _ in words.states) for words in classes)
    lengths = np.array([*map(len, names)])
    mask = np.arange(lengths.max()) < lengths[:, None]
    tokens = np.zeros((*mask.shape, states.shape[1]), np.float32)
    tokens[mask] = states
    return TextTokens(tokens, mask, names, tuple(words.source for words in classes))


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _shuffled_order(classes: tuple[ClassPhrases, ...], seed: int) -> np.ndarray:
    # Classes of one object (four circuit boards) share words, so they count as one.
    groups = [words.name for words in classes for _ in words.states]
    if len(groups) < 2:
        raise UserError(
            "text.control=shuffled needs at least two text tokens; describe a defect "
            f"of {classes[0].class_name} or train more classes"
        )
    return deranged(groups, np.random.default_rng(seed))
