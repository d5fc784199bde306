"""The classes, and the rendering of one picture of a class with its exact mask."""

import zlib

import numpy as np
from scipy import ndimage

from promptmad_jax.data.synthetic import (
    bottle_cap,
    brushed_metal,
    grained_leather,
    hex_bolt,
    ic_chip,
    spur_gear,
    wood_board,
    woven_fabric,
)
from promptmad_jax.data.synthetic.camera import digitize, expose
from promptmad_jax.data.synthetic.geometry import make_grid

GOOD = "good"
SCENES = {
    "bottle_cap": bottle_cap,
    "brushed_metal": brushed_metal,
    "grained_leather": grained_leather,
    "hex_bolt": hex_bolt,
    "ic_chip": ic_chip,
    "spur_gear": spur_gear,
    "wood_board": wood_board,
    "woven_fabric": woven_fabric,
}
CLASS_NAMES = tuple(SCENES)
VISIBLE = 0.04  # smallest difference of a channel (0..1) that counts as changed
CORE = 0.25  # ... and the same as a share of the defect's own large differences
AREA = (0.003, 0.08)  # share of the picture that a defect may cover
PORE, SPECK = 0.003, 0.0005  # holes filled and islands dropped below this share
ATTEMPTS = 20


def defect_types(class_name: str) -> tuple[str, ...]:
    return SCENES[class_name].DEFECTS


def render_sample(
    seed: int, class_name: str, split: str, defect: str, index: int, image_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Renders picture `index` of a class: image uint8 [S, S, 3] and mask bool [S, S].

    All randomness comes from (seed, class, split, defect, index). A defective part is drawn twice
    from the same random state, without and with its defect; the mask is where the two noiseless
    photographs differ visibly.
    """
    key = zlib.crc32(f"{class_name}/{split}/{defect}".encode())

    def stream(number: int) -> np.random.Generator:
        return np.random.default_rng([seed, key, index, number])

    grid = make_grid(image_size)

    def photograph(kind: str, marker: np.random.Generator) -> np.ndarray:
        scene = SCENES[class_name].render(grid, stream(0), kind, marker)
        return expose(scene.astype(np.float32, copy=False), grid, stream(1))

    picture = photograph(GOOD, stream(3))
    mask = np.zeros((image_size, image_size), bool)
    if defect != GOOD:
        picture, mask = _damaged(picture, lambda marker: photograph(defect, marker), stream)
    return digitize(picture, stream(2)), mask


def _damaged(intact: np.ndarray, photograph, stream) -> tuple[np.ndarray, np.ndarray]:
    for attempt in range(ATTEMPTS):
        picture = photograph(stream(3 + attempt))
        mask = changed_pixels(intact, picture)
        if AREA[0] <= mask.mean() <= AREA[1]:
            return picture, mask
    raise RuntimeError(f"no visible defect of the wanted size in {ATTEMPTS} attempts")


def changed_pixels(intact: np.ndarray, damaged: np.ndarray) -> np.ndarray:
    """Mask [S, S] of the visible difference of two pictures [3, S, S], specks and pores removed."""
    difference = np.abs(damaged - intact).max(0)
    seen = difference > VISIBLE
    if not seen.any():
        return seen
    seen = difference > max(VISIBLE, CORE * np.percentile(difference[seen], 95))
    reach = max(1, round(seen.shape[0] / 64))
    disc = np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1]) <= reach + 0.3
    padded = np.pad(seen, reach)
    closed = ndimage.binary_closing(padded, disc)[reach:-reach, reach:-reach]
    filled = ~_larger_parts(~closed, PORE * seen.size)
    return _larger_parts(filled, max(4, SPECK * seen.size))


def _larger_parts(region: np.ndarray, size: float) -> np.ndarray:
    parts, count = ndimage.label(region, np.ones((3, 3)))
    sizes = ndimage.sum_labels(region, parts, np.arange(count + 1))
    return region & (sizes >= size)[parts]
