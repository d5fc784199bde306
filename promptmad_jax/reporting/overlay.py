"""Heat colours for anomaly maps, alone and over their image, on a scale given by the caller."""

import numpy as np

# The inferno map of matplotlib at 33 even steps (CC0).
_INFERNO = """000004 040312 0b0724 150b37 210c4a 2f0a5b 3d0965 4a0c6b 57106e 64156e 71196e
7d1e6d 8a226a 972766 a32c61 b0315b bc3754 c63d4d d04545 da4e3c e35933 eb6429
f1711f f67e14 f98c0a fb9b06 fcaa0f fbba1f f9c932 f5d949 f2e865 f3f586 fcffa4"""
_STEPS = np.array([list(bytes.fromhex(code)) for code in _INFERNO.split()], np.float32)
_POSITIONS = np.linspace(0, 1, 256)
COLOURS = np.stack(
    [np.interp(_POSITIONS, np.linspace(0, 1, len(_STEPS)), channel) for channel in _STEPS.T], axis=1
).astype(np.float32)
OPACITY = 0.75  # at vmax
_BAND = 2**20  # Pixels that are coloured together.
_RISE, _FALL = (np.array(colour, np.float32) for colour in ((255, 150, 60), (70, 150, 255)))


def normalised(values: np.ndarray, vmin: float, vmax: float) -> np.ndarray:
    """Maps [vmin, vmax] to [0, 1], clipped, as float32.

    Raises:
      ValueError: if vmax is not above vmin.
    """
    if not vmax > vmin:
        raise ValueError(f"the colour scale is empty: {vmin} to {vmax}")
    return np.clip((values - vmin) / (vmax - vmin), 0, 1).astype(np.float32)


def colorize(values: np.ndarray, vmin: float, vmax: float) -> np.ndarray:
    """Colours an anomaly map, from black at vmin and below to pale yellow at vmax and above.

    Args:
      values: float [H, W].
      vmin, vmax: the scale, shared by all images that are compared.

    Returns:
      uint8 [H, W, 3].
    """
    return np.rint(_heat(normalised(values, vmin, vmax))).astype(np.uint8)


def overlay(image: np.ndarray, values: np.ndarray, vmin: float, vmax: float) -> np.ndarray:
    """Lays heat colours over the image, more opaque for higher values.

    Args:
      image: uint8 [H, W, 3].
      values: float [H, W].
      vmin, vmax: the scale; the image shows unchanged at vmin and below.

    Returns:
      uint8 [H, W, 3].
    """
    result = np.empty_like(image)
    rows = 1 + _BAND // image.shape[1]
    for start in range(0, len(image), rows):  # A huge image takes as little memory as a small one.
        band = slice(start, start + rows)
        level = normalised(values[band], vmin, vmax)
        weight = OPACITY * level[..., None]
        result[band] = np.rint((1 - weight) * image[band] + weight * _heat(level))
    return result


def diverging(values: np.ndarray, extent: float) -> np.ndarray:
    """Colours a signed map: black at 0, orange towards `extent`, blue towards -`extent`.

    Args:
      values: float [H, W].
      extent: above 0.

    Returns:
      uint8 [H, W, 3].
    """
    up, down = (normalised(sign * values, 0.0, extent)[..., None] for sign in (1, -1))
    return np.rint(up * _RISE + down * _FALL).astype(np.uint8)


def _heat(level: np.ndarray) -> np.ndarray:
    return COLOURS[np.rint(level * 255).astype(np.intp)]
