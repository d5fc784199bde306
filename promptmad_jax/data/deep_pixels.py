"""Pixels of more than 8 bits, where Pillow would cut or mistake them."""

import io
import sys

import numpy as np
from PIL import Image

_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_PLANAR = 258, 262, 284
_GREY_ALPHA = "RGBA"  # As which 16-bit grey with alpha is read: high, low, high, low byte.


def tiff_fault(image: Image.Image) -> str | None:
    """The reason why Pillow would read an opened file wrongly without saying so, or None."""
    tags = getattr(image, "tag_v2", None)
    if tags is None or max(tags.get(_TIFF_BITS, (1,))) <= 8:
        return None
    if tags.get(_TIFF_PLANAR) == 2:
        return "a TIFF of 16-bit planes: save it with interleaved channels"
    if tags.get(_TIFF_PHOTOMETRIC) == 0:
        return "a TIFF of more than 8 bits in which 0 is white: save it with 0 as black"
    if _rawmode(image).startswith("RGBa"):
        return "16-bit colour multiplied by its alpha: save it without alpha"
    return None


def low_bytes(image: Image.Image, data: bytes) -> Image.Image | None:
    """The low bytes of 16-bit colour, which Pillow has no mode for; it decodes the high ones.

    Args:
      image: opened from `data`, not yet loaded.
    """
    other = other_byte(image)
    if other is None:
        return None
    low = Image.open(io.BytesIO(data))
    for place, tile in enumerate(low.tile):
        args = other if isinstance(tile.args, str) else (other, *tile.args[1:])
        low.tile[place] = tile._replace(args=args)
    low.load()
    return Image.merge("RGB", [low.getchannel(1)] * 3) if other == _GREY_ALPHA else low


def other_byte(image: Image.Image) -> str | None:
    """Pillow's raw mode that decodes the low bytes of 16-bit colour; None for other images."""
    rawmode = _rawmode(image)
    if rawmode == "LA;16B":
        return _GREY_ALPHA
    kind, _, order = rawmode.partition(";16")
    if kind not in ("RGB", "RGBX", "RGBA") or not order:
        return None
    big = order == "B" or (order == "N" and sys.byteorder == "big")
    return f"{kind};16{'L' if big else 'B'}"


def _rawmode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ""
    return args if isinstance(args, str) else str(args[0]) if args else ""


def stored_values(image: Image.Image, low: Image.Image | None) -> np.ndarray:
    """The pixels [H, W] or [H, W, 3] of an image, without alpha.

    Args:
      low: from `low_bytes`.

    Returns:
      uint8, or of more than 8 bits uint16, int32 or float32.
    """
    if image.mode in ("L", "I", "F"):
        return np.asarray(image)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode in ("LA", "La"):
        return np.asarray(image.getchannel(0))
    high = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    return high if low is None else high.astype(np.uint16) << 8 | np.asarray(low)[..., :3]
