"""The test images of one class and their anomaly maps, as the evaluation takes them."""

from dataclasses import dataclass, replace

import numpy as np

from promptmad_jax.evaluation.metrics.metrics import image_scores
from promptmad_jax.evaluation.thresholds import Thresholds

# The fields of `ClassMaps` with one entry per image.
_ROWS = tuple(
    "filenames defect_types labels images masks indices original_masks image_scores".split()
)


@dataclass(frozen=True, eq=False)
class TypeMaps:
    """Predicted and true defect types of the pixels of one class.

    Attributes:
      names: K names of types.
      predicted: uint8 [n, H, W], 0 normal, k the type `names[k - 1]`.
      true: the same, 255 where the type is unknown.
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
      labels: int [n], 0 normal and 1 defective, as the data set labels them.
      images: uint8 [n, H, W, 3].
      masks: bool [n, H, W], true on defects.
      maps: float32 [n, H, W] each. "final" is the map that is measured; "reconstruction", "coarse"
        and "refined" are the model's maps that it is made of.
      indices: int [n], the images' places in the class; 0 to n - 1 by default.
      original_masks: n masks bool [H', W'] of the sizes of the files, for the compatibility modes
        that measure at another size.
      image_scores: float [n], for a model that scores images itself and not by the maximum of the
        final map.
      types: for reports, if the model distinguishes defect types; a share has none.
      thresholds: of the class, if known.
      normal_level: of the final map's normal pixels.

    Raises:
      ValueError: the shapes do not fit together, or the "final" map is missing.
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
    thresholds: Thresholds | None = None
    normal_level: float = 0.0

    def __post_init__(self):
        count, shape = len(self.filenames), self.masks.shape
        if self.indices is None:
            object.__setattr__(self, "indices", np.arange(count))
        if "final" not in self.maps:
            raise ValueError(f"class {self.class_name}: no 'final' map among {sorted(self.maps)}")
        rows = [getattr(self, name) for name in _ROWS]
        if any(len(row) != count for row in rows if row is not None):
            raise ValueError(f"class {self.class_name}: {count} file names do not fit the rest")
        if self.images.shape != (*shape, 3):
            raise ValueError(f"class {self.class_name}: images {self.images.shape}, masks {shape}")
        for name, values in self.maps.items():
            if values.shape != shape:
                raise ValueError(
                    f"class {self.class_name}: map '{name}' {values.shape}, masks {shape}"
                )

    def scores(self, pool: int) -> np.ndarray:
        """The image scores [n]: the model's own, or those of the final map with this window."""
        if self.image_scores is not None:
            return self.image_scores
        return image_scores(self.maps["final"], pool)

    def share(self, index: int, count: int) -> "ClassMaps":
        """The share of process `index` of `count` that all hold the whole class.

        Returns:
          Every `count`-th image from `index` on, possibly none.
        """
        rows = slice(index, None, count)
        given = {name: getattr(self, name) for name in _ROWS}
        cut = {name: values[rows] for name, values in given.items() if values is not None}
        maps = {name: values[rows] for name, values in self.maps.items()}
        return replace(self, **cut, maps=maps, types=None)
