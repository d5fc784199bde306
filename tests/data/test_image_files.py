"""What files of every depth and mode mean, as images and as masks."""

import io

import numpy as np
import pytest
from PIL import Image

from promptmad_jax.data.image_files import ImageFileError, from_pillow, opened
from promptmad_jax.data.levels import Levels, Values, find_levels, measure
from promptmad_jax.data.preprocess import decode_image, decode_mask
from promptmad_jax.runtime.errors import UserError
from tests.data.image_trees import encode, encode_png16, pixels, spot


def encode_tiff(values):
    return encode(Image.fromarray(values[..., 0]), "TIFF")


ENCODERS = {
    "grey png": (1, encode_png16),
    "grey and alpha": (2, encode_png16),
    "colour png": (3, encode_png16),
    "colour and alpha": (4, encode_png16),
    "tiff": (1, encode_tiff),
    "signed tiff": (1, lambda values: encode_tiff(values.astype(np.int32))),
    "float tiff": (1, lambda values: encode_tiff(values.astype(np.float32))),
}


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("name", ENCODERS)
def test_deep_files_read_as_their_eight_bit_copies(name, bits):
    channels, encoder = ENCODERS[name]
    image = pixels(0, channels=4)[..., :channels]
    image[0, 0], scale = 255, 2 ** (bits - 8)
    noise = np.random.default_rng(1).integers(0, scale, image.shape)
    data = encoder((image.astype(int) * scale + noise).astype(np.uint16))
    with opened(data) as file:
        levels = find_levels([measure(file.values)])
        decoded = file.rgb(levels)
    assert name == "float tiff" or levels == Levels.of_bits(bits)
    colours = image[..., :3] if channels > 2 else image[..., :1]
    error = np.abs(decoded.astype(int) - colours)
    assert error.max() <= (name == "float tiff")
    image = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(from_pillow(image, "a PIL image").rgb(levels), decoded)
    image.load()  # It still can be read by whom it belongs to.


@pytest.mark.parametrize(
    ("kind", "low", "high", "levels"),
    [
        ("8-bit", 0, 255, None),
        ("integer", 0, 200, Levels(0, 255)),
        ("integer", 9, 256, Levels(0, 1023)),
        ("integer", 0, 65535, Levels(0, 65535)),
        ("integer", -5, 900, Levels(-5, 900)),
        ("integer", 0, 70000, Levels(0, 70000)),
        ("float", 0, 0.9, Levels(0, 1)),
        ("float", 0, 254.5, Levels(0, 255)),
        ("float", 280, 320, Levels(280, 320)),
        ("float", 0, 0.01, Levels(0, 0.01)),
    ],
)
def test_the_range_of_a_data_set(kind, low, high, levels):
    middle = Values(kind, (low + high) / 2, (low + high) / 2, 0)
    assert find_levels([middle, Values(kind, low, high, 0), middle]) == levels


def test_floats_beside_deep_integers_are_refused():
    with pytest.raises(UserError, match="save all of them alike"):
        find_levels([Values("float", 0, 1, 1), Values("integer", 0, 999, 9)])


def _alpha(colour):
    return Image.fromarray(np.dstack([np.full((20, 24, 3), colour, np.uint8), spot()]))


def _palette(colours, **info):
    image = Image.fromarray(spot(value=1)).convert("P")
    image.putpalette(colours)
    image.info |= info
    return image


RED = np.zeros((20, 24, 3), np.uint8)
RED[..., 0] = spot()
OPAQUE = np.full((20, 24, 1), 255, np.uint8)
MASKS = {
    **{f"value {value}": encode(Image.fromarray(spot(value=value))) for value in (1, 3, 255)},
    "16 bits": encode(Image.fromarray(spot(value=1).astype(np.uint16))),
    "16-bit colour": encode_png16(RED // 255),
    "1 bit": encode(Image.fromarray(spot()).convert("1")),
    "float": encode(Image.fromarray(spot() / np.float32(255)), "TIFF"),
    "grey and alpha": encode(Image.fromarray(spot()).convert("LA")),
    "colour": encode(Image.fromarray(RED)),
    "colour and opaque alpha": encode(Image.fromarray(np.dstack([RED, OPAQUE]))),
    "colour on transparent white": encode(
        Image.fromarray(np.dstack([RED | (255 - spot()[..., None]), spot()]))
    ),
    "alpha over white": encode(_alpha(255)),
    "alpha over black": encode(_alpha(0)),
    "alpha over green": encode(_alpha((0, 200, 0))),
    "palette": encode(_palette([0, 0, 0, 128, 0, 0])),
    "palette of black": encode(_palette([0, 0, 0, 0, 0, 0])),
    "palette with a transparent colour": encode(_palette([255] * 3 + [9] * 3), transparency=0),
    "jpeg": encode(Image.fromarray(np.kron(spot(), np.ones((8, 8), np.uint8))), "JPEG"),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_what_was_painted(name):
    mask = decode_mask(MASKS[name])
    assert mask.dtype == np.bool_
    wanted = spot() > 0
    if name == "jpeg":
        wanted = np.kron(wanted, np.ones((8, 8), bool))
    np.testing.assert_array_equal(mask, wanted)


def test_a_large_image_names_the_option_that_reads_it():
    data = encode(Image.fromarray(pixels(0, 1000, 1001)))
    with pytest.raises(ImageFileError, match=r"1001x1000 .*than 1; --max_megapixels=N raises"):
        decode_image(data, max_megapixels=1)
    assert decode_image(data, max_megapixels=1.1).shape == (1000, 1001, 3)


@pytest.mark.parametrize(("mode", "error"), [("CMYK", 1), ("LAB", 20), ("YCbCr", 4)])
def test_other_colour_spaces_become_rgb(mode, error):
    image = Image.fromarray(np.tile(pixels(3, 1, 1), (4, 4, 1)))
    if mode == "LAB":
        from PIL import ImageCms

        profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
        transform = ImageCms.buildTransform(*profiles, "RGB", "LAB")
        data = encode(ImageCms.applyTransform(image, transform), "TIFF")
    else:
        data = encode(image.convert(mode), "JPEG", quality=100)
    assert np.abs(decode_image(data).astype(int) - np.asarray(image)).max() <= error


def test_the_first_of_several_frames_is_read_and_said():
    frames = [Image.fromarray(pixels(seed)) for seed in range(3)]
    data = encode(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    with opened(data) as file:
        np.testing.assert_array_equal(file.rgb(), pixels(0))
        assert list(file.remarks(None)) == ["the first of its 3 frames is read"]
