import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from promptmad_jax.data import preprocess
from promptmad_jax.data.image_files import ImageFileError
from promptmad_jax.runtime.errors import UserError
from tests.data.image_trees import encode, pixels, write_image


def test_rgb_is_returned_as_stored(tmp_path):
    array = pixels(0)
    path = write_image(tmp_path / "a.png", array)
    np.testing.assert_array_equal(preprocess.decode_image(path), array)
    np.testing.assert_array_equal(preprocess.decode_image(str(path)), array)
    np.testing.assert_array_equal(preprocess.decode_image(path.read_bytes()), array)


GREY = np.asarray([[0, 255, 0], [255, 0, 255]], np.uint8)
PALETTE = Image.new("P", (2, 1))
PALETTE.putpalette([10, 20, 30, 40, 50, 60])
PALETTE.putdata([1, 0])
MODES = {
    **{mode: (Image.fromarray(GREY).convert(mode), GREY[..., None]) for mode in ("L", "LA", "1")},
    "P": (PALETTE, [[[40, 50, 60], [10, 20, 30]]]),
    "RGBA": (
        Image.fromarray(np.dstack([pixels(1), np.zeros((20, 24), np.uint8)])),
        pixels(1),
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_colours_are_as_stored_without_alpha(mode):
    image, wanted = MODES[mode]
    decoded = preprocess.decode_image(encode(image))
    np.testing.assert_array_equal(decoded, np.broadcast_to(wanted, decoded.shape))


def test_exif_orientation_is_applied():
    image = Image.fromarray(pixels(2, height=16, width=32))
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was turned: rotate by 270 degrees to show upright.
    data = encode(image, "JPEG", exif=exif, quality=100, subsampling=0)
    decoded = preprocess.decode_image(data)
    upright = np.asarray(Image.open(io.BytesIO(data)).transpose(Image.Transpose.ROTATE_270))
    assert decoded.shape == (32, 16, 3)
    np.testing.assert_array_equal(decoded, upright)


def test_missing_file_names_itself(tmp_path):
    path = tmp_path / "none.png"
    with pytest.raises(UserError, match=r"none\.png: No such file") as caught:
        preprocess.decode_image(path)
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "unreadable"),
        (b"this is text", "not_an_image"),
        (encode(Image.fromarray(pixels(3)))[:700], "unreadable"),
        (encode(Image.fromarray(pixels(3, 200, 200)), "JPEG")[:4000], "unreadable"),
        (encode(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"), "bit_depth"),
        (encode(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF"), "unreadable"),
        (b"II*\0 cut", "unreadable"),
    ],
    ids=["empty", "text", "cut png", "cut jpeg", "float", "not finite", "cut tiff"],
)
def test_damaged_bytes_are_told_apart(data, kind):
    with pytest.raises(ImageFileError) as caught:
        preprocess.decode_image(data)
    assert caught.value.kind == kind


def test_resize_changes_the_aspect_and_averages():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 4:] = 200
    resized = preprocess.resize_image(image, 2)
    assert resized.shape == (2, 2, 3)
    # The triangle filter of an antialiased half spans both sides a little.
    assert resized[0, 0, 0] < 40
    assert resized[0, 1, 0] > 160
    assert resized[0, 0, 0] + resized[0, 1, 0] == 200
    assert preprocess.resize_image(resized, 2) is resized


def test_mask_resize_takes_the_nearest_pixel():
    mask = np.kron(np.asarray([[1, 0], [0, 1]], bool), np.ones((3, 5), bool))
    np.testing.assert_array_equal(preprocess.resize_mask(mask, 2), [[True, False], [False, True]])
    assert preprocess.resize_mask(mask, 7).dtype == np.bool_


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_normalize_by_hand(make, dtype):
    image = np.asarray([[[0, 255, 51]]], dtype)[None]
    result = preprocess.normalize(make(image))
    assert isinstance(result, jax.Array if make is jnp.asarray else np.ndarray)
    assert result.dtype == np.float32
    wanted = [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    np.testing.assert_allclose(np.asarray(result)[0, 0, 0], wanted, rtol=1e-5)


@pytest.fixture
def every_value():
    """Each of the 256 values in each channel, beside others."""
    return np.random.default_rng(0).permuted(
        np.arange(256, dtype=np.uint8).repeat(9).reshape(16, 16, 9), axis=None
    )[..., :3]


@pytest.mark.parametrize("shape", [(224, 224), (96, 130), (37, 300)])
def test_preprocessing_is_the_references_to_the_bit(every_value, shape):
    """Pillow's bilinear resize, then torch's: scaled to 0..1, less the mean, by the deviation."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    theirs = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(preprocess.resize_image(image, 64), theirs)
    for values in (theirs, every_value):
        tensor = torch.from_numpy(values.copy()).permute(2, 0, 1).to(torch.float32).div(255)
        mean, std = (
            torch.tensor(c)[:, None, None]
            for c in (preprocess.IMAGENET_MEAN, preprocess.IMAGENET_STD)
        )
        expected = tensor.sub(mean).div(std).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(preprocess.normalize(values), expected)


def test_compiled_normalisation_rounds_as_numpys(every_value):
    """XLA divides by multiplying with a reciprocal: a few roundings away, of values to 2.7."""
    compiled = np.asarray(jax.jit(preprocess.normalize)(every_value))
    np.testing.assert_allclose(compiled, preprocess.normalize(every_value), rtol=0, atol=1e-6)
