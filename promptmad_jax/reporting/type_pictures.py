"""Paints defect types over images, every type in its own colour throughout a report."""

import colorsys

import numpy as np

from promptmad_jax.data.defect_types.taxonomy import UNKNOWN
from promptmad_jax.evaluation.class_maps import ClassMaps, TypeMaps
from promptmad_jax.reporting.gallery import Example

Colour = tuple[int, int, int]
UNKNOWN_COLOUR: Colour = (150, 150, 150)
# Distinct colours chosen by Sasha Trubetskoy; further ones follow round the colour circle.
_FIRST = bytes.fromhex(
    "e6194b 3cb44b ffe119 4363d8 f58231 911eb4 46f0f0 f032e6 bcf60c fabebe "
    "008080 e6beff 9a6324 fffac8 800000 aaffc3 808000 ffd8b1 000075"
)
_GOLDEN, _SATURATION, _VALUE = 0.618034, 0.6, 0.8
_OPACITY = 0.65


def colour(number: int) -> Colour:
    """The colour of the type with id `number`, counted from 1; grey for 255, an unknown type."""
    if number == UNKNOWN:
        return UNKNOWN_COLOUR
    if 3 * number <= len(_FIRST):
        return tuple(_FIRST[3 * number - 3 : 3 * number])
    hue = (number - len(_FIRST) // 3) * _GOLDEN % 1
    return tuple(round(255 * x) for x in colorsys.hsv_to_rgb(hue, _SATURATION, _VALUE))


def paint(image: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Lays the colours of ids uint8 [H, W] over an image uint8 [H, W, 3]; 0 leaves it as it is."""
    table = np.asarray([(0, 0, 0), *map(colour, range(1, UNKNOWN + 1))], np.float32)
    weight = np.where(ids > 0, _OPACITY, 0)[..., None].astype(np.float32)
    return np.rint((1 - weight) * image + weight * table[ids]).astype(np.uint8)


def type_examples(class_maps: ClassMaps) -> list[Example]:
    """The image with the highest score of each defect type and of the normal ones.

    The explanation names the type that most defective pixels were given.
    """
    scores, maps = class_maps.image_scores, class_maps.types
    groups = [(maps.true == k).any((1, 2)) for k in np.unique(maps.true) if k not in (0, UNKNOWN)]
    members = (np.flatnonzero(group) for group in [*groups, class_maps.labels == 0])
    rows = dict.fromkeys(int(own[np.argmax(scores[own])]) for own in members if len(own))
    return [_example(class_maps, maps, row) for row in rows]


def _example(class_maps: ClassMaps, maps: TypeMaps, row: int) -> Example:
    image, predicted = class_maps.images[row], maps.predicted[row]
    counts = np.bincount(predicted.ravel(), minlength=2)[1:]
    seen = maps.names[int(counts.argmax())] if counts.any() else "normal"
    pictures = {
        "image": image,
        "true types": paint(image, maps.true[row]),
        "predicted types": paint(image, predicted),
    }
    return Example(
        class_maps.filenames[row], class_maps.defect_types[row], f"predicted as {seen}", pictures
    )
