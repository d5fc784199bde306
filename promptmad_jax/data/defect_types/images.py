"""Images with the type of every defective pixel."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from promptmad_jax.data.defect_types.taxonomy import UNKNOWN, Taxonomy, find_taxonomy
from promptmad_jax.data.image_set import ImageSet, load_image_set
from promptmad_jax.data.pipeline import BatchIndices


@dataclasses.dataclass(frozen=True)
class DefectTypeImages:
    """N images with the defect type of each pixel.

    Attributes:
      images: the images.
      type_masks: uint8 [N, S, S]: 0 normal, k the type `taxonomy.types[k - 1]`, 255 (`UNKNOWN`) a
        defect of unknown type.
      type_ids: the ids of each image's defects; empty for a normal image.
      taxonomy: the types.
    """

    images: ImageSet
    type_masks: np.ndarray
    type_ids: tuple[frozenset[int], ...]
    taxonomy: Taxonomy

    def __len__(self) -> int:
        return len(self.images)

    def select(self, indices: Sequence[int] | np.ndarray) -> "DefectTypeImages":
        """The images at `indices` (int [M]), in that order."""
        order = np.asarray(indices, np.int64).reshape(-1)
        return dataclasses.replace(
            self,
            images=self.images.select(order),
            type_masks=self.type_masks[order],
            type_ids=tuple(self.type_ids[index] for index in order),
        )

    def types_of(self, class_name: str) -> tuple[str, ...]:
        """Names of the types that the images of a class show, in the order of the taxonomy."""
        wanted = self.images.class_names.index(class_name)
        rows = np.flatnonzero(self.images.class_ids == wanted)
        present = frozenset().union(*(self.type_ids[row] for row in rows))
        return tuple(self.taxonomy.names[k - 1] for k in sorted(present - {UNKNOWN}))


def load_defect_type_images(
    dataset: str,
    data_dir: str,
    split: str,
    image_size: int,
    taxonomy: str = "",
    classes: tuple[str, ...] = (),
    kernel: str = "bilinear",
    cache_dir: str = "",
) -> DefectTypeImages:
    """Reads a split of a prepared data set with the types of its defects.

    Args:
      taxonomy: see `find_taxonomy`; the rest as in `load_image_set`.

    Raises:
      UserError: as those two; or the taxonomy lacks a defect folder.
    """
    images = load_image_set(dataset, data_dir, split, image_size, classes, kernel, cache_dir)
    return with_types(images, find_taxonomy(dataset, taxonomy, _folders(images)))


def with_types(images: ImageSet, taxonomy: Taxonomy) -> DefectTypeImages:
    """Adds type masks: from `defect_ids`, or the binary masks times each image's type.

    Raises:
      UserError: the taxonomy lacks a defect folder.
    """
    ids = {folder: taxonomy.id_of(folder) for folder in _folders(images)}
    per_image = [[ids[name] for name in _names(images, row)] for row in range(len(images))]
    masks = np.zeros(images.masks.shape, np.uint8)
    for row, image_ids in enumerate(per_image):
        if image_ids:
            masks[row] = _type_mask(images, row, image_ids)
    return DefectTypeImages(images, masks, tuple(map(frozenset, per_image)), taxonomy)


def renumber(type_masks: np.ndarray, names: tuple[str, ...], wanted: tuple[str, ...]) -> np.ndarray:
    """Renumbers type masks uint8 [...]: ids into `names` become ids into `wanted`.

    Ids count from 1; 0 and 255 stay.

    Raises:
      ValueError: a type of the masks is not among `wanted`.
    """
    table = np.zeros(256, np.uint8)
    table[UNKNOWN] = UNKNOWN
    for k, name in enumerate(names, start=1):
        table[k] = wanted.index(name) + 1 if name in wanted else 0
    missing = [k for k in np.unique(type_masks) if k and not table[k]]
    if missing:
        lost = ", ".join(names[k - 1] if k <= len(names) else str(k) for k in missing)
        raise ValueError(f"the masks have the types {lost}, which are not among {wanted}")
    return table[type_masks]


def _names(images: ImageSet, row: int) -> list[str]:
    """Folders or labels of an image's defects."""
    if not images.labels[row]:
        return []
    text = images.defect_types[row]
    return [text] if images.defect_ids is None else text.split(",")


def _folders(images: ImageSet) -> list[str]:
    names = (name for row in range(len(images)) for name in _names(images, row))
    return list(dict.fromkeys(names))


def _type_mask(images: ImageSet, row: int, image_ids: list[int]) -> np.ndarray:
    if images.defect_ids is None:
        return np.where(images.masks[row], image_ids[0], 0).astype(np.uint8)
    table = np.full(256, UNKNOWN, np.uint8)
    table[0] = 0
    table[1 : len(image_ids) + 1] = image_ids
    return table[images.defect_ids[row]]


class DefectTypeExamples(NamedTuple):
    """N training examples, or a batch of them; one of the first two fields is None.

    Attributes:
        images: uint8 [N, S, S, 3].
        states: a frozen image tower's features of the images, any tree of arrays.
        type_masks: uint8 [N, S, S], 0 normal, k the k-th trained type.
        labels: bool [N], true for a defective image.
    """

    images: Any
    states: Any
    type_masks: Any
    labels: Any


def take_examples(examples: DefectTypeExamples, indices: BatchIndices) -> DefectTypeExamples:
    """The examples at `indices.image`, from numpy or jax arrays."""
    return jax.tree.map(lambda x: x[indices.image], examples)
