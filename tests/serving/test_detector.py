"""Images from Python: what is taken, what is refused, and what comes back."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from promptmad_jax.data.levels import Levels
from promptmad_jax.evaluation.thresholds import Thresholds
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving.detector import LoadedDetector, to_rgb
from promptmad_jax.serving.prediction import Prediction

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
RGB = np.stack([GREY, GREY, GREY], -1)
OPAQUE = np.full((3, 4, 1), 255, np.uint8)
TURNED = Image.fromarray(RGB[::-1, ::-1])
TURNED.getexif()[ExifTags.Base.Orientation] = 3


@pytest.mark.parametrize(
    "image",
    [
        GREY,
        GREY[..., None],
        RGB,
        np.concatenate([RGB, OPAQUE], -1),
        GREY / 255,
        (RGB / 255).astype(np.float32),
        Image.fromarray(GREY),
        Image.fromarray(RGB),
        Image.fromarray(RGB).convert("RGBA"),
        Image.fromarray(GREY).convert("P"),
        Image.fromarray(GREY.astype(np.uint16) << 8),
        TURNED,
    ],
)
def test_every_form_of_one_image(image):
    np.testing.assert_array_equal(to_rgb(image, Levels.of_bits(16)), RGB)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("part.png", "not str; read a file with PIL.Image.open"),
        (GREY.astype(np.int32), "uint8 or float in 0..1, not int32"),
        (RGB * 1.0, "floats must lie in 0..1"),
        (np.full((3, 4), np.nan), "floats must lie in 0..1"),
        (RGB[..., :2], r"not \[3, 4, 2\]"),
        (GREY[0], r"not \[4\]"),
        (RGB[:0], r"not \[0, 4, 3\]"),
        (Image.fromarray(GREY.astype(np.uint16)), "more than 8 bits"),
    ],
)
def test_other_images_end_in_a_sentence(image, message):
    with pytest.raises(UserError, match=message):
        to_rgb(image)


def brightest(images, class_name):
    thresholds = Thresholds(0.5, 0.6, 10) if class_name == "bolt" else None
    return [
        Prediction(class_name, float(image.max()) / 255, image[:2, :2, 0] / np.float32(255),
                   (0.0, 1.0), thresholds)
        for image in images
    ]  # fmt: skip


brightest.class_names = ("bolt",)


def test_one_image_or_several():
    detector = LoadedDetector(brightest)
    dark, bright = RGB // 4, np.full((6, 8, 3), 200, np.uint8)
    result = detector(bright, "bolt")
    assert (result.verdict, result.threshold, result.class_name) == ("defective", 0.6, "bolt")
    assert result.map.shape == (6, 8) and result.map.dtype == np.float32
    assert result.regions[0].area == 48
    assert [one.verdict for one in detector([dark, bright], "bolt")] == ["normal", "defective"]
    assert len(detector(np.stack([dark, dark]), "bolt")) == 2 and detector([], "bolt") == []
    unknown = detector(dark, "nut")
    assert unknown.verdict is None and unknown.threshold is None and unknown.regions == ()
