"""What the evaluation is given of one class: its test images and the maps a model made of them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """The test images of one class with their anomaly maps.

    Attributes:
      class_name: the class.
      filenames: n names, relative, with forward slashes.
      defect_types: n words, "good" for a normal image.
      labels: int [n], 0 normal and 1 defective, as the data set says.
      images: uint8 [n, H, W, 3].
      masks: bool [n, H, W], true on defects.
      maps: float32 [n, H, W] each. "final" carries the metrics of the class; "reconstruction",
        "coarse" and "refined" are the parts of the model that made it, where the model has them.

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

    def __post_init__(self):
        count, shape = len(self.filenames), self.masks.shape
        if "final" not in self.maps:
            raise ValueError(f"class {self.class_name}: no 'final' map among {sorted(self.maps)}")
        if not len(self.defect_types) == len(self.labels) == len(self.masks) == count:
            raise ValueError(f"class {self.class_name}: {count} file names do not fit the rest")
        if self.images.shape != (*shape, 3):
            raise ValueError(f"class {self.class_name}: images {self.images.shape}, masks {shape}")
        for name, values in self.maps.items():
            if values.shape != shape:
                raise ValueError(
                    f"class {self.class_name}: map '{name}' {values.shape}, masks {shape}"
                )
