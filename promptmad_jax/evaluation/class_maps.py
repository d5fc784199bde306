"""What the evaluation is given of one class: its test images and the maps a model made of them."""

from dataclasses import dataclass, replace

import numpy as np

from promptmad_jax.evaluation.metrics.metrics import image_scores


@dataclass(frozen=True, eq=False)
class TypeMaps:
    """Which defect a model sees where, of the images of one class.

    Attributes:
      names: K names of types.
      predicted: uint8 [n, H, W], 0 normal, k the type `names[k - 1]`.
      true: the same, 255 where the type is not known.
    """

    names: tuple[str, ...]
    predicted: np.ndarray
    true: np.ndarray


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """The test images of one class with their anomaly maps, or one process's share of them.

    Attributes:
      class_name: the class.
      filenames: n names, relative, with forward slashes.
      defect_types: n words, "good" for a normal image.
      labels: int [n], 0 normal and 1 defective, as the data set says.
      images: uint8 [n, H, W, 3].
      masks: bool [n, H, W], true on defects.
      maps: float32 [n, H, W] each. "final" carries the metrics of the class; "reconstruction",
        "coarse" and "refined" are the parts of the model that made it, where the model has them.
      indices: int [n], the images' places in the class; 0 to n - 1 where nothing is given.
      original_masks: n masks bool [H', W'] of the sizes of the files, for the compatibility mode
        "original_size" alone.
      image_scores: float [n], where the model scores images itself, not by the maximum of the
        final map; metrics of the final map use them.
      types: for reports, where the model tells types apart; a share has none.

    Raises:
      ValueError: where the shapes do not fit together or there is no "final" map.
    """

    class_name: str
    filenames: tuple[str, ...]
    defect_types: tuple[str, ...]
    labels: np.ndarray
    images: np.ndarray
    masks: np.ndarray
    maps: dict[str, np.ndarray]
    indices: np.ndarray | None = None
    original_masks: tuple[np.ndarray, ...] | None = None
    image_scores: np.ndarray | None = None
    types: TypeMaps | None = None

    def __post_init__(self):
        count, shape = len(self.filenames), self.masks.shape
        if self.indices is None:
            object.__setattr__(self, "indices", np.arange(count))
        if "final" not in self.maps:
            raise ValueError(f"class {self.class_name}: no 'final' map among {sorted(self.maps)}")
        rows = [self.defect_types, self.labels, self.masks, self.indices]
        rows += [row for row in (self.original_masks, self.image_scores) if row is not None]
        if any(len(row) != count for row in rows):
            raise ValueError(f"class {self.class_name}: {count} file names do not fit the rest")
        if self.images.shape != (*shape, 3):
            raise ValueError(f"class {self.class_name}: images {self.images.shape}, masks {shape}")
        for name, values in self.maps.items():
            if values.shape != shape:
                raise ValueError(
                    f"class {self.class_name}: map '{name}' {values.shape}, masks {shape}"
                )

    def scores(self, pool: int) -> np.ndarray:
        """The image scores [n]: the model's own, or of the final map with this window."""
        if self.image_scores is not None:
            return self.image_scores
        return image_scores(self.maps["final"], pool)

    def share(self, index: int, count: int) -> "ClassMaps":
        """Every `count`-th image from `index` on, possibly none: what one of `count` processes
        gives to the evaluation where each of them holds the whole class."""
        rows = slice(index, None, count)
        return replace(
            self,
            filenames=self.filenames[rows],
            defect_types=self.defect_types[rows],
            labels=self.labels[rows],
            images=self.images[rows],
            masks=self.masks[rows],
            maps={name: values[rows] for name, values in self.maps.items()},
            indices=self.indices[rows],
            original_masks=None if self.original_masks is None else self.original_masks[rows],
            image_scores=None if self.image_scores is None else self.image_scores[rows],
            types=None,
        )
