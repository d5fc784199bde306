"""The arrays of a run's classes, and the constants of their calibration."""

import dataclasses
from typing import NamedTuple

import numpy as np

from promptmad_jax.evaluation.constants import Calibration
from promptmad_jax.models.reconstruction.memory import Memory
from promptmad_jax.prompts.embeddings import TextTokens, join_tokens, select_tokens
from promptmad_jax.runtime.names import matching

_BY_CLASS = ("normal", "score_range", "thresholds", "scores", "ignored", "gallery")


class Classes(NamedTuple):
    """The arrays of a run that have an entry per class."""

    names: tuple[str, ...]
    prompts: np.ndarray
    text: TextTokens | None
    memory: Memory

    def place(self, name: str) -> int | None:
        """The id of a class, in any spelling; None if it is unknown."""
        known = [matching(other) for other in self.names]
        return known.index(matching(name)) if matching(name) in known else None

    def select(self, ids: list[int]) -> "Classes":
        """Some of them."""
        text = self.text and select_tokens(self.text, ids)
        memory = Memory(*(np.asarray(part)[ids] for part in self.memory))
        return Classes(tuple(self.names[k] for k in ids), self.prompts[ids], text, memory)

    def with_class(self, new: "Classes") -> "Classes":
        """Adds a class at the end, or replaces the memory of a known one."""
        if not self.names:
            return new
        k = self.place(*new.names)
        end = len(self.names) if k is None else k
        pairs = zip(self.memory, new.memory, strict=True)
        memory = Memory(*(np.concatenate([a[:end], b, a[end + 1 :]]) for a, b in pairs))
        if k is not None:
            return self._replace(memory=memory)
        text = self.text and join_tokens(self.text, new.text)
        prompts = np.concatenate([self.prompts, new.prompts])
        return Classes(self.names + new.names, prompts, text, memory)


def only_class(calibration: Calibration, name: str) -> Calibration:
    """The constants of one class."""
    by_class = {field: getattr(calibration, field) for field in _BY_CLASS}
    own = {field: {name: values[name]} for field, values in by_class.items() if name in values}
    return dataclasses.replace(calibration, **{field: {} for field in _BY_CLASS} | own)


def without_class(calibration: Calibration, name: str) -> Calibration:
    """The constants of the other classes."""
    return dataclasses.replace(
        calibration,
        **{
            field: {k: v for k, v in getattr(calibration, field).items() if k != name}
            for field in _BY_CLASS
        },
    )


def without_classes(calibration: Calibration) -> Calibration:
    """The constants that concern no class."""
    empty = {field: {} for field in (*_BY_CLASS, "checkpoint_scores")}
    return dataclasses.replace(calibration, **empty, source="enrolled", history=())


def joined_constants(calibration: Calibration, own: Calibration) -> Calibration:
    """The constants with those of a class in place of, or beside, what was there."""
    return dataclasses.replace(
        calibration,
        **{field: getattr(calibration, field) | getattr(own, field) for field in _BY_CLASS},
    )
