"""A small inspection data set drawn from a seed, in the form of MVTec-AD; nothing is downloaded."""

import dataclasses
import io
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from promptmad_jax.data import synthetic
from promptmad_jax.data.builders import features
from promptmad_jax.runtime.errors import UserError

DESCRIPTION = (
    "Synthetic inspection pictures: four objects and four textures with four defect types each,"
    " rendered from a seed, with the exact mask of every defect."
)
LARGEST_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Contents:
    """What is drawn: the seed, the size in pixels and the number of pictures of each kind."""

    seed: int
    image_size: int
    train_per_class: int
    test_good_per_class: int
    test_per_defect: int
    class_names: tuple[str, ...]

    def __post_init__(self):
        _check("seed", self.seed, 0, LARGEST_SEED)
        _check("image_size", self.image_size, 64, 2048)
        _check("train_per_class", self.train_per_class, 1, 100_000)
        _check("test_good_per_class", self.test_good_per_class, 1, 100_000)
        _check("test_per_defect", self.test_per_defect, 1, 100_000)
        unknown = sorted(set(self.class_names) - set(synthetic.CLASS_NAMES))
        if unknown or not self.class_names:
            known = ", ".join(synthetic.CLASS_NAMES)
            raise UserError(f"class_names={list(self.class_names)}: choose from {known}")

    def of_split(self, split: str, class_name: str) -> Iterator[tuple[str, int]]:
        """(defect type, index) of every picture of a class."""
        if split == "train":
            yield from ((synthetic.GOOD, index) for index in range(self.train_per_class))
            return
        yield from ((synthetic.GOOD, index) for index in range(self.test_good_per_class))
        for defect in synthetic.defect_types(class_name):
            yield from ((defect, index) for index in range(self.test_per_defect))


class SyntheticMvtec(tfds.core.GeneratorBasedBuilder):
    """`tfds.builder("synthetic_mvtec", data_dir=..., seed=0, ...)`: 560 + 208 pictures of 256 px.

    Each picture depends on (seed, image_size, class, split, defect, index) alone, so other counts
    or classes keep the rest as it was. The arguments describe what to prepare; a prepared data set
    is read without them, whatever it was made with.

    Args:
      seed: 0 to 2**32 - 1.
      image_size: side of the square pictures in pixels, 64 or more.
      train_per_class: normal training pictures of a class.
      test_good_per_class: normal test pictures of a class.
      test_per_defect: defective test pictures of a defect type (four types a class).
      class_names: the classes to draw, all eight by default.
      kwargs: of the TFDS builder: `data_dir`, `version`.

    Raises `UserError` for a value out of range and for an unknown class.
    """

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.1.0": "Bottle caps and chips lie in a nest, with a few degrees of play; 70 training"
        " pictures a class.",
    }

    def __init__(
        self,
        *,
        seed: int = 0,
        image_size: int = 256,
        train_per_class: int = 70,
        test_good_per_class: int = 10,
        test_per_defect: int = 4,
        class_names: tuple[str, ...] = synthetic.CLASS_NAMES,
        **kwargs,
    ):
        self._contents = Contents(
            seed=seed,
            image_size=image_size,
            train_per_class=train_per_class,
            test_good_per_class=test_good_per_class,
            test_per_defect=test_per_defect,
            class_names=tuple(class_names),
        )
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return features.dataset_info(self, DESCRIPTION)

    def _split_generators(self, dl_manager):
        del dl_manager
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        contents = self._contents
        for class_name in contents.class_names:
            for defect, index in contents.of_split(split, class_name):
                image, mask = synthetic.render_sample(
                    contents.seed, class_name, split, defect, index, contents.image_size
                )
                filename = f"{class_name}/{split}/{defect}/{index:03d}.png"
                yield (
                    filename,
                    {
                        "image": _png(image),
                        "mask": _png(mask.astype(np.uint8) * 255),
                        "label": int(defect != synthetic.GOOD),
                        "class_name": class_name,
                        "defect_type": defect,
                        "filename": filename,
                    },
                )


def _check(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UserError(f"{name}={value!r}: an integer from {low} to {high} is needed")


def _png(pixels: np.ndarray) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    buffer.seek(0)
    return buffer
