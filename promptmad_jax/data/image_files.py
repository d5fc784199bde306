"""Image files: their stored pixels at full depth, and what these mean as an image and as a mask."""

import contextlib
import functools
import io
import os
import pathlib
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from promptmad_jax.data.deep_pixels import low_bytes, other_byte, stored_values, tiff_fault
from promptmad_jax.data.levels import Levels, measure
from promptmad_jax.runtime.errors import UserError

MAX_MEGAPIXELS = 500.0
_HUGE = 64  # Megapixels from which an image is decoded alone, for the memory it takes.
_alone = threading.RLock()
_EXIF_ORIENTATION = 0x0112

# Damaged metadata beside pixels that can be read.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

Source = bytes | str | os.PathLike[str]


@dataclass(frozen=True)
class Reading:
    """Options for reading image files.

    Attributes:
      levels: the black and the white of images with more than 8 bits; None refuses these.
      max_megapixels: larger images are refused.
    """

    levels: Levels | None = None
    max_megapixels: float = MAX_MEGAPIXELS

    def rgb(self, source: Source) -> tuple[np.ndarray, list[str]]:
        """Decodes an image; returns uint8 [H, W, 3] and what was odd about it."""
        with opened(source, self.max_megapixels) as file:
            return file.rgb(self.levels), list(file.remarks(self.levels))


DEFAULT_READING = Reading()


class ImageFileError(UserError):
    """A file that cannot be decoded.

    Attributes:
      kind: `not_an_image` (no known image format), `too_large`, or `unreadable` (missing,
        truncated, damaged, of an unsupported pixel type).
      reason: the reason without the file name.
    """

    def __init__(self, source: Source, kind: str, reason: str):
        name = "image bytes" if isinstance(source, bytes) else os.fspath(source)
        super().__init__(f"{name}: {reason}")
        self.kind = kind
        self.reason = reason


class ImageFile:
    """A decoded image, upright.

    Attributes:
      values: stored pixels, grey [H, W] or RGB [H, W, 3]: uint8, or of more than 8 bits uint16,
        int32 or float32. Palettes are looked up, alpha is dropped.
      plain: True if every reader decodes the file alike: PNG or JPEG, 8-bit grey or RGB, one
        upright frame.
      frames: number of frames, of which the first is read.
      lossy: True for a JPEG.
    """

    def __init__(
        self,
        image: Image.Image,
        source: Source,
        frames: int = 1,
        low: Image.Image | None = None,
    ):
        self._source, self.frames = source, frames
        self.lossy = image.format in ("JPEG", "MPO")
        try:
            turned = image.getexif().get(_EXIF_ORIENTATION, 1) != 1
            upright = ImageOps.exif_transpose if turned else lambda image: image  # Else a copy.
            self._image = upright(image)
            self.values = stored_values(self._image, low if low is None else upright(low))
        except Exception as error:  # Pillow raises many types; the image may not be decoded yet.
            raise ImageFileError(source, "unreadable", f"damaged pixels ({error})") from error
        plain = image.format in ("PNG", "JPEG") and image.mode in ("L", "RGB")
        self.plain = plain and low is None and not turned and frames == 1
        if self.values.dtype.kind == "f" and not np.isfinite(self.values).all():
            raise ImageFileError(source, "unreadable", "holds values that are not finite")

    def rgb(self, levels: Levels | None = None) -> np.ndarray:
        """The image as uint8 [H, W, 3].

        Args:
          levels: of a file with more than 8 bits.

        Raises:
          ImageFileError: the file has more than 8 bits, and no levels are given.
        """
        grey = self.grey_levels(levels)
        return grey if grey.ndim == 3 else np.repeat(grey[:, :, None], 3, axis=2)

    def grey_levels(self, levels: Levels | None = None) -> np.ndarray:
        """As `rgb`, but a grey image keeps its shape [H, W]."""
        if self.values.dtype == np.uint8:
            return self.values
        if levels is None:
            what = f"has more than 8 bits, with values up to {self.values.max():g}"
            way_out = "save it with 8 bits, or predict with --bit_depth=N"
            reason = f"{what}, and which of them is white is not known: {way_out}"
            raise ImageFileError(self._source, "bit_depth", reason)
        return levels.scale(self.values)

    def remarks(self, levels: Levels | None) -> Iterator[str]:
        """Remarks for the user on the way the file is read."""
        if self.frames > 1:
            yield f"the first of its {self.frames} frames is read"
        values = measure(self.values)
        if levels is not None and levels.exceeded(values):
            yield f"holds values {values.low:g} to {values.high:g}, clipped to {levels}"

    def mask(self) -> np.ndarray:
        """The image as a mask, bool [H, W]: what is painted, in colour or in alpha.

        Foreground is every pixel with a value above 0 in a colour channel, which makes small class
        ids, 255, colours and 16-bit values foreground; in a JPEG, above half of its largest value.
        Transparent pixels are background; if all others have one colour, they are the foreground.
        """
        if self.painted_alpha is not None:
            return self.painted_alpha
        floor = max(8, int(self.values.max()) // 2) if self.lossy else 0
        marked = self.values > floor
        marked = marked if marked.ndim == 2 else marked.any(axis=-1)
        if self._image.mode == "P" and not marked.any():  # A palette that is all black.
            marked = np.asarray(self._image) > 0
        return marked if self._opaque is None else marked & self._opaque

    @functools.cached_property
    def painted_alpha(self) -> np.ndarray | None:
        """The pixels that are not transparent, bool [H, W], if all of these have one colour."""
        if self._opaque is None:
            return None
        painted = self.values[self._opaque]
        return self._opaque if (painted == painted[0]).all() else None

    @functools.cached_property
    def _opaque(self) -> np.ndarray | None:
        """The pixels that are not transparent, bool [H, W]; None if all or none are."""
        image = self._image
        if image.mode in ("RGBA", "LA", "PA"):
            alpha = image.getchannel("A")
        elif "transparency" in image.info and image.mode in ("1", "L", "P", "RGB"):
            alpha = image.convert("RGBA").getchannel("A")
        else:
            return None
        opaque = np.asarray(alpha) > 0
        return None if opaque.all() or not opaque.any() else opaque

    def ids(self) -> np.ndarray:
        """The stored values as class ids, uint8 [H, W]; 0 is no class.

        Raises:
          ImageFileError: the file is not of one 8-bit channel.
        """
        mode = self._image.mode
        if mode not in ("1", "L", "P"):
            raise ImageFileError(
                self._source, "unreadable", f"pixels of mode {mode} hold no class ids"
            )
        return np.asarray(self._image).astype(np.uint8)


def pixel_count(data: bytes) -> int:
    """The pixels that an image's header claims; raises ImageFileError if it is none."""
    image = _open(data, data)
    return image.width * image.height


@contextlib.contextmanager
def opened(source: Source, max_megapixels: float = MAX_MEGAPIXELS) -> Iterator[ImageFile]:
    """Opens and decodes an image; one at a time if it is huge, as long as the context lasts.

    Args:
      source: the encoded bytes, or the path of a file.
      max_megapixels: a larger image is refused before it is decoded.

    Raises:
      ImageFileError: the source is missing, truncated, too large or not an image.
    """
    data = _read(source)
    with contextlib.ExitStack() as stack:
        image = _open(data, source)
        megapixels = image.width * image.height / 1e6
        if megapixels > max_megapixels:
            size = f"{image.width}x{image.height} are {megapixels:.4g} megapixels"
            reason = f"{size}, more than {max_megapixels:g}; --max_megapixels=N raises this limit"
            raise ImageFileError(source, "too_large", reason)
        if megapixels > _HUGE:
            stack.enter_context(_alone)
        yield _load(image, data, source)


def from_pillow(image: Image.Image, name: str) -> ImageFile:
    """An image that was opened with Pillow, as `opened` reads its file; `name` is for errors."""
    file = getattr(image, "fp", None)
    if not getattr(image, "tile", None) or file is None or other_byte(image) is None:
        return ImageFile(image, name)
    place = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(place)
    return _load(_open(data, name), data, name)


def _read(source: Source) -> bytes:
    try:
        data = source if isinstance(source, bytes) else pathlib.Path(source).read_bytes()
    except OSError as error:
        raise ImageFileError(source, "unreadable", error.strerror or str(error)) from error
    if not data:
        raise ImageFileError(source, "unreadable", "the file is empty")
    return data


def _open(data: bytes, source: Source) -> Image.Image:
    Image.MAX_IMAGE_PIXELS = None  # `opened` has a limit of its own, which a user can raise.
    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        if data.startswith((b"II", b"MM")):
            reason = "a damaged TIFF, or of unsupported pixels: save it with 8 or 16 bits"
            raise ImageFileError(source, "unreadable", reason) from error
        raise ImageFileError(source, "not_an_image", "not an image of a known format") from error
    except Exception as error:
        raise ImageFileError(source, "unreadable", f"cannot be decoded ({error})") from error


def _load(image: Image.Image, data: bytes, source: Source) -> ImageFile:
    if fault := tiff_fault(image):
        raise ImageFileError(source, "unreadable", fault)
    try:
        # The further frames of a phone's MPO are previews.
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        low = low_bytes(image, data)
        image.load()
    except Exception as error:
        raise ImageFileError(source, "unreadable", f"cannot be decoded ({error})") from error
    return ImageFile(image, source, frames, low)
