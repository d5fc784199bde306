"""Pictures of results: heat colours, outlines of the regions, and the verdict in words."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from promptmad_jax.evaluation.regions import marking_levels
from promptmad_jax.reporting.marking import mark_regions
from promptmad_jax.reporting.overlay import overlay
from promptmad_jax.serving.prediction import Prediction
from promptmad_jax.serving.result import Result

_TEXT = (255, 255, 255)
_BANNERS = {"normal": (30, 120, 60), "defective": (190, 40, 40), "unknown": (110, 70, 150)}
_LEAST_TEXT = 8  # pixels


def draw(image: np.ndarray, prediction: Prediction, result: Result, marked: bool) -> Image.Image:
    """Draws what was found over an image uint8 [H, W, 3].

    A defective image is coloured in its regions and wherever the map is above the threshold of
    regions; the colours end at twice the threshold's height above the normal level. Without a
    threshold the whole map is drawn; other images stay as they are.

    Args:
        marked: writes verdict, score and threshold into the picture.
    """
    if result.verdict is None:
        return Image.fromarray(overlay(image, result.map, *prediction.score_range))
    if result.verdict == "defective":
        levels = marking_levels(prediction.thresholds, prediction.score_range[0], result.score)
        picture = Image.fromarray(mark_regions(image, result.map, result.regions, *levels))
    else:
        picture = Image.fromarray(image)
    if marked:
        _write(picture, result)
    return picture


def _write(picture: Image.Image, result: Result) -> None:
    """Writes the verdict into the upper or, where only that one is free, the lower left corner."""
    sign = ">" if result.score > result.threshold else "<"
    text = f"{result.verdict}  {result.score:.3g} {sign} {result.threshold:.3g}"
    if result.verdict == "unknown":
        text = f"unknown  {result.novelty:.1f} times the limit"
    draw = ImageDraw.Draw(picture)
    size = max(_LEAST_TEXT, round((picture.width * picture.height) ** 0.5 / 16))
    fits = lambda text: int(0.95 * size * picture.width / draw.textlength(text, _font(size)))
    if fits(text) < _LEAST_TEXT:
        text = result.verdict
    size = max(_LEAST_TEXT, min(size, fits(text)))
    margin = size // 4
    width, height = draw.textlength(text, _font(size)) + 2 * margin, size + 2 * margin
    bottom = picture.height - height
    hidden = [[r for r in result.regions if _meets(r.box, width, y, height)] for y in (0, bottom)]
    top = bottom if hidden[0] and not hidden[1] else 0
    draw.rectangle((0, top, width, top + height - 1), _BANNERS[result.verdict])
    draw.text((margin, top + height / 2), text, _TEXT, _font(size), anchor="lm")


def _meets(box: tuple[int, int, int, int], width: float, top: float, height: float) -> bool:
    return box[0] < width and box[1] < top + height and box[3] > top


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
