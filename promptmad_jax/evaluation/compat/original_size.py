"""Pixel metrics at the size of the files or a given size, to which maps are enlarged."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from promptmad_jax.data.prepared import find_prepared, read_contents, read_records
from promptmad_jax.data.preprocess import decode_mask, resize_mask
from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.metrics.blocks import Block, ClassScores
from promptmad_jax.evaluation.metrics.exact import build_curve, measure
from promptmad_jax.evaluation.metrics.ground_truth import GroundTruth
from promptmad_jax.evaluation.metrics.metrics import PIXEL_METRICS, pixel_figures
from promptmad_jax.runtime.processes import Communicator


class OriginalMasks:
    """Reads the masks of a split of a prepared data set at the size of the files.

    Args:
      dataset, data_dir, split: as for `load_image_set`.

    Raises:
      UserError: the data set is not prepared, or damaged.
    """

    def __init__(self, dataset: str, data_dir: str, split: str):
        self._prepared, self._split = find_prepared(dataset, data_dir), split
        rows = read_contents(self._prepared, split).rows
        self._places = {(row.class_name, row.filename): row.index for row in rows}

    def __call__(self, class_name: str, filenames: Sequence[str]) -> tuple[np.ndarray, ...]:
        """The masks bool [H, W] of images of one class."""
        places = tuple(self._places[class_name, name] for name in filenames)
        records = read_records(self._prepared, self._split, places)
        return tuple(decode_mask(record["mask"]) for record in records)


class OriginalSize:
    """The compatibility modes that measure `ClassMaps.original_masks` against enlarged maps.

    Args:
      limit: `EvalConfig.aupro_limit`.
      size: side in pixels to which masks (nearest) and maps (bilinear) are resized; None keeps the
        masks as they are.
    """

    def __init__(self, limit: float, communicator: Communicator, size: int | None = None):
        self._limit, self._communicator, self._size = limit, communicator, size
        self._block = Block(PIXEL_METRICS)
        self.left_out = ""

    def add(self, class_maps: ClassMaps, scored: ClassScores) -> None:
        """Measures a class, or records that it has no masks of the original size."""
        name, masks = class_maps.class_name, class_maps.original_masks
        if masks is None:
            self.left_out = f"class {name} has no masks of the original size"
            return
        if self._size is not None:
            masks = [resize_mask(mask, self._size) for mask in masks]
        truth = GroundTruth(masks, class_maps.indices, self._communicator)
        pairs = zip(scored.maps, masks, strict=True)
        pixels = truth.pixels([enlarge(values, mask.shape) for values, mask in pairs])
        self._block.add(name, *measure(build_curve([pixels]), pixel_figures(self._limit)))

    def result(self) -> dict:
        """The pixel metrics as a block."""
        return self._block.result()


def enlarge(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resizes a map float [h, w] to (H, W), bilinear, float32."""
    picture = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(picture.resize(shape[::-1], Image.Resampling.BILINEAR))
