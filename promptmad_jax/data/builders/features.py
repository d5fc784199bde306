"""The record format of all data sets of the project."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

LABELS = ("good", "defective")
UNKNOWN_ID = 255


def dataset_info(
    builder: tfds.core.DatasetBuilder,
    description: str,
    homepage: str | None = None,
    citation: str | None = None,
    defect_ids: bool = False,
) -> tfds.core.DatasetInfo:
    """The `DatasetInfo` of a builder with the features that every reader here expects.

    `image` is PNG or JPEG, grey or RGB; `mask` is a PNG of 0 and 255 of the image's size;
    `defect_type` is "good" for a normal image; `filename` is relative, with forward slashes, and
    unique within a split.

    With `defect_ids` an image may have several defect types: `defect_type` names them, separated by
    commas, and a further PNG gives each pixel's: 0 is normal, k the k-th of these names,
    `UNKNOWN_ID` a defect of unknown type.
    """
    image_of_ids = tfds.features.Image(shape=(None, None, 1), encoding_format="png")
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        homepage=homepage,
        citation=citation,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=LABELS),
                "class_name": tfds.features.Text(),
                "defect_type": tfds.features.Text(),
                "filename": tfds.features.Text(),
                **({"defect_ids": image_of_ids} if defect_ids else {}),
            }
        ),
    )


def encode_png(pixels: np.ndarray, compress_level: int = 6) -> bytes:
    """Encodes uint8 pixels [H, W] or [H, W, 3] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=compress_level)
    return buffer.getvalue()
