"""The protocol of predictors: images of any sizes in, predictions out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from promptmad_jax.evaluation.calibration import Thresholds


@dataclass(frozen=True)
class Prediction:
    """score: the image's; anomaly_map: float32 [S, S]; score_range: fixed scale for drawing;
    thresholds: of the class, where there are any; details: more to say in JSON; pictures: more to
    show, name -> uint8 [S, S, 3]."""

    class_name: str
    score: float
    anomaly_map: np.ndarray
    score_range: tuple[float, float]
    thresholds: Thresholds | None
    details: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)


class Predictor(Protocol):
    """Scores images of any sizes.

    Attributes:
        class_names: the classes that it knows; empty where any object can be named.
    """

    class_names: tuple[str, ...]

    def __call__(self, images: Sequence[np.ndarray], class_name: str) -> list[Prediction]:
        """Predictions for RGB images uint8 [H, W, 3].

        Args:
            class_name: one of `class_names`, or "auto" to find it; or what the images show.
        """
        ...

    def check_class(self, class_name: str) -> None:
        """Raises UserError if it cannot be called with this class name."""
        ...
