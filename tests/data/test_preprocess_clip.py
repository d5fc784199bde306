"""Preprocessing as CLIP has it: bicubic, its own mean and deviation."""

import numpy as np
import pytest
from PIL import Image

from promptmad_jax.clip.vision import IMAGE_MEAN, IMAGE_STD
from promptmad_jax.data.preprocess import normalize, resize_image


def test_bicubic_squashes_as_pillow():
    image = np.random.default_rng(0).integers(0, 256, (30, 44, 3)).astype(np.uint8)
    expected = Image.fromarray(image).resize((21, 21), Image.Resampling.BICUBIC)
    resized = resize_image(image, 21, "bicubic")
    np.testing.assert_array_equal(resized, np.asarray(expected))
    assert (resized != resize_image(image, 21)).any()


def test_bicubic_overshoots_at_an_edge_and_bilinear_does_not():
    step = np.full((8, 8, 3), 100, np.uint8)
    step[:, 4:] = 200
    assert resize_image(step, 32, "bicubic").max() > 200 == resize_image(step, 32).max()


def test_unknown_kernel():
    with pytest.raises(KeyError):
        resize_image(np.zeros((2, 2, 3), np.uint8), 4, "nearest")


def test_normalize_with_clips_moments_by_hand():
    images = np.asarray([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
    mean, std = np.float32(IMAGE_MEAN), np.float32(IMAGE_STD)
    expected = [
        (0 - 0.48145466) / 0.26862954,
        (0.2 - 0.4578275) / 0.26130258,
        (1 - 0.40821073) / 0.27577711,
    ]
    np.testing.assert_allclose(normalize(images, mean, std)[0, 0, 0], expected, rtol=1e-5)
