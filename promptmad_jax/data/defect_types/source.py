"""The test split of a source data set as training data, for detectors that learn from defects."""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from promptmad_jax.data.defect_types.images import DefectTypeImages, load_defect_type_images
from promptmad_jax.data.defect_types.taxonomy import UNKNOWN
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.field_types import UnitInterval


@dataclass(frozen=True)
class SourceConfig:
    """Training data of a zero-shot detector: the test split of a data set, with its defects.

    Attributes:
        dataset: name of a prepared TFDS data set; empty where nothing is trained.
        data_dir: folder that `prepare` wrote it to; empty takes `data.data_dir`.
        classes: names of the classes to keep; empty keeps all.
        taxonomy: as `data.taxonomy`.
        single_defect: leave out images with defects of several types, as is usual with VisA.
        mosaic: probability that an image becomes a mosaic of four.
    """

    dataset: str = ""
    data_dir: str = ""
    classes: tuple[str, ...] = ()
    taxonomy: str = ""
    single_defect: bool = False
    mosaic: UnitInterval = 0.0


class SourceData(NamedTuple):
    """Training data of a zero-shot detector.

    Attributes:
      data: images whose defective pixels all have a type, so that ids are 0 to K.
      fact: a top-level entry of the manifest, `trained_on_test_split`.
    """

    data: DefectTypeImages
    fact: dict[str, dict]


def load_source(
    dataset: str,
    data_dir: str,
    image_size: int,
    taxonomy: str = "",
    classes: tuple[str, ...] = (),
    single_defect_only: bool = False,
    kernel: str = "bilinear",
    cache_dir: str = "",
) -> SourceData:
    """Reads the test split of a data set, normal and defective images, to train on.

    Images with a defect of unknown type are left out.

    Args:
      single_defect_only: leave out images of more than one type as well, as is usual with VisA.
      dataset, ...: as in `load_defect_type_images`.

    Raises:
      UserError: as there; or no defective image is left.
    """
    every = load_defect_type_images(
        dataset, data_dir, "test", image_size, taxonomy, classes, kernel, cache_dir
    )
    # A small defect may have lost its last pixel in resizing.
    unknown = (every.type_masks == UNKNOWN).any(axis=(1, 2)) | np.asarray(
        [UNKNOWN in ids for ids in every.type_ids], bool
    )
    several = np.asarray([len(ids) > 1 for ids in every.type_ids], bool)
    kept = ~unknown & ~(several & single_defect_only)
    data = every.select(np.flatnonzero(kept))
    if not data.images.labels.any():
        raise UserError(
            f"{dataset} in {data_dir}: no defective image with a known type to train on"
            f" (left out: {int((~kept).sum())}); choose another data set or more classes"
        )
    left_out = {
        "a defect of unknown type": int(unknown.sum()),
        "more than one type": int((several & ~unknown & single_defect_only).sum()),
    }
    return SourceData(data, {"trained_on_test_split": _fact(dataset, data, left_out)})


def _fact(dataset: str, data: DefectTypeImages, left_out: dict[str, int]) -> dict:
    labels = data.images.labels
    types = Counter(k for ids in data.type_ids for k in ids)
    return {
        "warning": (
            f"TRAINED ON THE TEST SPLIT OF {dataset}, with its defects, masks and types: no figure"
            f" on its classes {', '.join(data.images.class_names)} is a test; figures on other"
            " products are zero-shot"
        ),
        "dataset": dataset,
        "fingerprint": data.images.fingerprint,
        "images": len(data),
        "normal": int((labels == 0).sum()),
        "defective": int((labels != 0).sum()),
        "classes": list(data.images.class_names),
        "left_out": left_out,
        "taxonomy": data.taxonomy.source,
        "images_of_type": {name: types[k] for k, name in enumerate(data.taxonomy.names, start=1)},
    }
