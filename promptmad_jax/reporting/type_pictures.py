"""Defect types as colours over the image, the same colour for a type everywhere."""

import colorsys
from dataclasses import dataclass

import numpy as np

from promptmad_jax.data.defect_types.taxonomy import UNKNOWN
from promptmad_jax.evaluation.class_maps import ClassMaps, TypeMaps

Colour = tuple[int, int, int]
UNKNOWN_COLOUR: Colour = (150, 150, 150)
# Chosen by Sasha Trubetskoy to be told apart; further ones follow round the colour circle.
_FIRST = bytes.fromhex(
    "e6194b 3cb44b ffe119 4363d8 f58231 911eb4 46f0f0 f032e6 bcf60c fabebe "
    "008080 e6beff 9a6324 fffac8 800000 aaffc3 808000 ffd8b1 000075"
)
_GOLDEN, _SATURATION, _VALUE = 0.618034, 0.6, 0.8
_OPACITY = 0.65


def colour(number: int) -> Colour:
    """Of the type with id `number`, counted from 1; 255 is grey, the type not being known."""
    if number == UNKNOWN:
        return UNKNOWN_COLOUR
    if 3 * number <= len(_FIRST):
        return tuple(_FIRST[3 * number - 3 : 3 * number])
    hue = (number - len(_FIRST) // 3) * _GOLDEN % 1
    return tuple(round(255 * x) for x in colorsys.hsv_to_rgb(hue, _SATURATION, _VALUE))


def paint(image: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Lays the colours of ids uint8 [H, W] over an image uint8 [H, W, 3]; 0 stays as it is."""
    table = np.asarray([(0, 0, 0), *map(colour, range(1, UNKNOWN + 1))], np.float32)
    weight = np.where(ids > 0, _OPACITY, 0)[..., None].astype(np.float32)
    return np.rint((1 - weight) * image + weight * table[ids]).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class TypeExample:
    """An image with the types that are there and those that were seen.

    Attributes:
      filename, defect_type: of the image. seen: the type that most defective pixels were given.
      pictures: caption -> uint8 [H, W, 3].
    """

    filename: str
    defect_type: str
    seen: str
    pictures: dict[str, np.ndarray]


def type_examples(class_maps: ClassMaps) -> list[TypeExample]:
    """Of each type the image with the highest score, and the normal image with the highest one."""
    scores, maps = class_maps.image_scores, class_maps.types
    wanted = sorted(set(np.unique(maps.true).tolist()) - {0, UNKNOWN})
    rows = []
    for number in wanted:
        members = np.flatnonzero((maps.true == number).any((1, 2)))
        rows.append(int(members[np.argmax(scores[members])]))
    normal = np.flatnonzero(class_maps.labels == 0)
    rows += [int(normal[np.argmax(scores[normal])])] if len(normal) else []
    return [_example(class_maps, maps, row) for row in dict.fromkeys(rows)]


def _example(class_maps: ClassMaps, maps: TypeMaps, row: int) -> TypeExample:
    image, predicted = class_maps.images[row], maps.predicted[row]
    counts = np.bincount(predicted.ravel(), minlength=2)[1:]
    seen = maps.names[int(counts.argmax())] if counts.any() else "normal"
    return TypeExample(
        class_maps.filenames[row],
        class_maps.defect_types[row],
        seen,
        {
            "image": image,
            "types that are there": paint(image, maps.true[row]),
            "types seen": paint(image, predicted),
        },
    )
