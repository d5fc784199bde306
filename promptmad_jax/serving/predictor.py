"""Predictor of a trained detector with a class bank."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from promptmad_jax.data.preprocess import resize_image, resize_mask
from promptmad_jax.evaluation.constants import Calibration
from promptmad_jax.evaluation.metrics.metrics import image_scores
from promptmad_jax.evaluation.novelty import nearest_class
from promptmad_jax.evaluation.thresholds import parse_thresholds
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.names import matching, nearest
from promptmad_jax.serving.prediction import Prediction

SEARCH = ("auto", "nearest")
EXACT = "class:"


class Maker(Protocol):
    """Maps images of the classes; see `MapMaker`.

    Attributes:
        image_size: S.
    """

    image_size: int

    def described_maps(
        self, images: np.ndarray, class_ids: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray]: ...
    def descriptions(self, images: np.ndarray) -> np.ndarray: ...


class ClassPredictor:
    """Scores images of known classes, and finds the class if asked.

    Args:
        maker: the trained detector.
        fusion, image_pool: settings of the final map and the image score, as evaluated.
    """

    def __init__(
        self,
        maker: Maker,
        class_names: tuple[str, ...],
        calibration: Calibration,
        fusion: str,
        image_pool: int,
    ):
        self.class_names = class_names
        self._maker, self.calibration = maker, calibration
        self._fusion, self._image_pool = fusion, image_pool

    def __call__(self, images: Sequence[np.ndarray], class_name: str) -> list[Prediction]:
        """Scores RGB images uint8 [H, W, 3] of any sizes.

        Args:
            class_name: in any spelling of case and Unicode; "auto" or "nearest" finds the class of
                each image; "class:NAME" is always the class of that name.

        Raises:
            UserError: the model has no such class.
        """
        size = self._maker.image_size
        resized = np.stack([resize_image(image, size) for image in images])
        ids = self._class_ids(resized, class_name)
        maps, descriptions = self._maker.described_maps(resized, ids)
        names = [self.class_names[k] for k in ids]
        final = self.calibration.final_map(maps, self._fusion, names)
        scores = image_scores(final, self._image_pool)
        return list(map(self._prediction, names, scores, final, descriptions))

    def adjusted(self, thresholds: Sequence[str], ignored: np.ndarray | None) -> "ClassPredictor":
        """See `Predictor`."""
        known = self.calibration.thresholds
        if thresholds and not known:
            raise UserError("--threshold: a detector from a file of weights has no thresholds")
        calibration = self.calibration.by_hand(parse_thresholds(thresholds, known))
        if ignored is not None:
            calibration = calibration.ignoring(resize_mask(ignored, self._maker.image_size))
        settings = self._fusion, self._image_pool
        return ClassPredictor(self._maker, self.class_names, calibration, *settings)

    def _prediction(
        self, name: str, score: float, anomaly_map: np.ndarray, description: np.ndarray
    ) -> Prediction:
        calibration = self.calibration
        gallery = calibration.gallery.get(name)
        novelty, unlike = None, ""
        if gallery is not None:
            novelty = float(gallery.novelty(description[None])[0])
            unlike = gallery.reason(description)
        return Prediction(
            name,
            float(score),
            anomaly_map,
            calibration.score_range[name],
            calibration.thresholds.get(name),
            novelty=novelty,
            unlike=unlike,
        )

    def check_class(self, class_name: str) -> None:
        """Raises UserError if the model has no such class, or if the name is ambiguous."""
        if class_name in SEARCH and class_name in self.class_names:
            free = [f" or {word}" for word in SEARCH if word not in self.class_names]
            raise UserError(
                f"the model has a class called {class_name!r}, which is also the word for the "
                f"nearest class: give {EXACT}{class_name}{''.join(free)}"
            )
        name = self._exact(class_name)
        if class_name not in SEARCH and name not in self.class_names:
            raise UserError(
                f"the model has no class {name!r}; it has {', '.join(self.class_names)} (did you "
                f"mean {nearest(name, self.class_names)}?); 'auto' takes the nearest of each image"
            )

    def _exact(self, class_name: str) -> str:
        """The class's own spelling, if the model has it."""
        if class_name in self.class_names:
            return class_name
        name = class_name.removeprefix(EXACT)
        spellings = {matching(known): known for known in self.class_names}
        return name if name in self.class_names else spellings.get(matching(name), name)

    def _class_ids(self, images: np.ndarray, class_name: str) -> np.ndarray:
        self.check_class(class_name)
        if class_name in SEARCH:
            return self._nearest_class(images)
        return np.full(len(images), self.class_names.index(self._exact(class_name)))

    def _nearest_class(self, images: np.ndarray) -> np.ndarray:
        """The classes that the nearest of all normal images belong to."""
        gallery = self.calibration.gallery
        return nearest_class(
            self._maker.descriptions(images), [gallery[name] for name in self.class_names]
        )
