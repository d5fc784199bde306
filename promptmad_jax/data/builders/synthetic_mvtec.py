"""A small inspection data set drawn from a seed, in the form of MVTec-AD; nothing is downloaded."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from promptmad_jax.data.builders import features
from promptmad_jax.data.synthetic import scenes
from promptmad_jax.runtime.dataclass_parser import parse_dataclass
from promptmad_jax.runtime.field_types import Range, Seed

DESCRIPTION = (
    "Synthetic inspection pictures: four objects and four textures with four defect types each,"
    " rendered from a seed, with the exact mask of every defect."
)
Size = Annotated[int, Range(64, 2048)]
Count = Annotated[int, Range(1, 100_000)]


@dataclass(frozen=True)
class Contents:
    """The pictures to draw.

    Attributes:
      seed: of all pictures.
      image_size: side of the square pictures in pixels.
      train_per_class: normal training pictures per class.
      test_good_per_class: normal test pictures per class.
      test_per_defect: test pictures per defect type; a class has four types.
      class_names: the classes to draw.
    """

    seed: Seed = 0
    image_size: Size = 256
    train_per_class: Count = 70
    test_good_per_class: Count = 10
    test_per_defect: Count = 4
    class_names: tuple[str, ...] = scenes.CLASS_NAMES

    def __post_init__(self):
        if not self.class_names or set(self.class_names) - set(scenes.CLASS_NAMES):
            known = ", ".join(scenes.CLASS_NAMES)
            raise ValueError(f"class_names={list(self.class_names)}: choose from {known}")

    def of_split(self, split: str, class_name: str) -> Iterator[tuple[str, int]]:
        """Yields (defect type, index) of every picture of a class."""
        good = self.train_per_class if split == "train" else self.test_good_per_class
        yield from ((scenes.GOOD, index) for index in range(good))
        for defect in scenes.defect_types(class_name) if split == "test" else ():
            yield from ((defect, index) for index in range(self.test_per_defect))


class SyntheticMvtec(tfds.core.GeneratorBasedBuilder):
    """`tfds.builder("synthetic_mvtec", data_dir=..., seed=0, ...)`: 560 + 208 pictures of 256 px.

    Each picture depends only on (seed, image_size, class, split, defect, index), so other counts or
    classes leave the rest as it was. The arguments say what to prepare; a prepared data set is read
    without them.

    Args:
      arguments: fields of `Contents`, and those of the TFDS builder: `data_dir`, `version`.

    Raises `UserError` for a value out of range and for an unknown class.
    """

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.1.0": "Bottle caps and chips lie in a nest, with a few degrees of play; 70 training"
        " pictures a class.",
    }

    def __init__(self, **arguments):
        names = [field.name for field in fields(Contents) if field.name in arguments]
        drawn = {name: arguments.pop(name) for name in names}
        self._contents = parse_dataclass(Contents, drawn, self.name)
        super().__init__(file_format="array_record", **arguments)

    def _info(self) -> tfds.core.DatasetInfo:
        return features.dataset_info(self, DESCRIPTION)

    def _split_generators(self, dl_manager):
        del dl_manager
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        contents = self._contents
        for class_name in contents.class_names:
            for defect, index in contents.of_split(split, class_name):
                image, mask = scenes.render_sample(
                    contents.seed, class_name, split, defect, index, contents.image_size
                )
                filename = f"{class_name}/{split}/{defect}/{index:03d}.png"
                record = {
                    "image": features.encode_png(image, 1),
                    "mask": features.encode_png(mask.astype(np.uint8) * 255, 1),
                    "label": int(defect != scenes.GOOD),
                    "class_name": class_name,
                    "defect_type": defect,
                    "filename": filename,
                }
                yield filename, record
