"""Python interface of a trained detector, from images to results."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from PIL import Image

from promptmad_jax.data.image_files import from_pillow
from promptmad_jax.data.levels import Levels
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving.prediction import Predictor
from promptmad_jax.serving.result import Result, make_result

# uint8, or float in 0..1, [H, W], [H, W, 1], RGB [H, W, 3] or RGBA [H, W, 4]
ImageLike: TypeAlias = np.ndarray | Image.Image


class LoadedDetector:
    """Scores images; made by `promptmad_jax.load`.

    Attributes:
        class_names: the classes it was trained on; empty for a zero-shot detector, whose
            `class_name` says in words what the images show.
    """

    def __init__(self, predictor: Predictor, levels: Levels | None = None):
        self._predictor, self.class_names = predictor, predictor.class_names
        self._levels = levels

    def __call__(
        self, images: ImageLike | Sequence[ImageLike], class_name: str
    ) -> Result | list[Result]:
        """Returns the result of one image, or a list of results for several.

        Args:
            images: one image, a list of images of any sizes, or an array [N, H, W, 3].
            class_name: one of `class_names`, or "auto" for the most similar one.

        Raises:
            UserError: an image has an unusable type or shape, or the class is unknown.
        """
        several = isinstance(images, Sequence) or getattr(images, "ndim", 0) == 4
        pictures = [to_rgb(image, self._levels) for image in (images if several else [images])]
        if not pictures:
            return []
        predictions = self._predictor(pictures, class_name)
        results = [
            make_result(prediction, *picture.shape[:2])
            for prediction, picture in zip(predictions, pictures, strict=True)
        ]
        return results if several else results[0]


def to_rgb(image: ImageLike, levels: Levels | None = None) -> np.ndarray:
    """Converts an image to uint8 [H, W, 3]; repeats grey and drops alpha.

    A PIL image becomes what `promptmad predict` reads from its file: upright, and scaled by the
    run's levels if it has more than 8 bits.

    Raises:
        UserError: its type, shape or range is unusable.
    """
    if isinstance(image, Image.Image):
        name = getattr(image, "filename", "") or "a PIL image"
        return from_pillow(image, name).rgb(levels)
    if not isinstance(image, np.ndarray):
        raise UserError(
            f"an image must be a NumPy array or a PIL image, not {type(image).__name__}; read a "
            "file with PIL.Image.open"
        )
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4) or not image.size:
        raise UserError(
            f"an image must have the shape [H, W], [H, W, 3] or [H, W, 4], not {list(image.shape)}"
        )
    if np.issubdtype(image.dtype, np.floating):
        if not (image.min() >= 0 and image.max() <= 1):  # also refuses NaN
            raise UserError("an image of floats must lie in 0..1; divide by its largest value")
        image = np.rint(image * 255).astype(np.uint8)
    elif image.dtype != np.uint8:
        raise UserError(f"an image must be uint8 or float in 0..1, not {image.dtype}")
    return np.repeat(image, 3, -1) if image.shape[-1] == 1 else image[..., :3]
