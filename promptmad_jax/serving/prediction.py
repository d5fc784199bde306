"""Predictions for images, and the protocol of predictors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from promptmad_jax.evaluation.thresholds import Thresholds


@dataclass(frozen=True)
class Prediction:
    """Scores of an image, at the detector's resolution.

    Attributes:
        score: of the image.
        anomaly_map: float32 [S, S].
        score_range: normal level of the map, and the end of a fixed scale for drawing it.
        thresholds: of the class, if known.
        novelty: distance from the class's normal images; None if it is not measured.
        unlike: what sets the image apart from them, in words.
        details: further JSON values.
        pictures: further pictures, name -> uint8 [S, S, 3].
    """

    class_name: str
    score: float
    anomaly_map: np.ndarray
    score_range: tuple[float, float]
    thresholds: Thresholds | None
    details: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    novelty: float | None = None
    unlike: str = ""


class Predictor(Protocol):
    """Scores images of any sizes.

    Attributes:
        class_names: the classes that it knows; empty if it takes any words.
    """

    class_names: tuple[str, ...]

    def __call__(self, images: Sequence[np.ndarray], class_name: str) -> list[Prediction]:
        """Scores RGB images uint8 [H, W, 3].

        Args:
            class_name: one of `class_names`, "auto" to find it, or words for what the images show.
        """
        ...

    def check_class(self, class_name: str) -> None:
        """Raises UserError if the predictor does not take this class name."""
        ...

    def adjusted(self, thresholds: Sequence[str], ignored: np.ndarray | None) -> "Predictor":
        """The same detector with settings of the user.

        Args:
            thresholds: CLASS=VALUE, image thresholds set by hand.
            ignored: bool [H, W], pixels that do not count, stretched over every image.

        Raises:
            UserError: the detector does not have what is set.
        """
        ...
