"""Draws `docs/maps.png` from a finished run: `python tools/make_maps.py WORKDIR`.

One defective test image of each class with the highest score among those of its class: image, true
defect, the memory's map, the map as the segmentor corrects it, overlay of the final map; one fixed
scale per column and class, from 0 to the largest value of the class.
"""

import sys

import numpy as np
from PIL import Image

from promptmad_jax.methods.method import open_method
from promptmad_jax.reporting.overlay import colorize, overlay
from promptmad_jax.runs.workdir import Workdir

CLASSES = 5


def main(workdir: str) -> None:
    files = Workdir(workdir)
    step = files.read_calibration().step
    _, maps = open_method(files.config()).report_maps(files, step)
    rows = [draw(one) for one in sorted(maps, key=separation, reverse=True)[:CLASSES]]
    Image.fromarray(np.concatenate(rows)).save("docs/maps.png")


def separation(one) -> float:
    """Highest peak of a defective image less the mean peak of the class's normal ones."""
    peaks = one.maps["final"].max((1, 2))
    return float(peaks[one.labels == 1].max() - peaks[one.labels == 0].mean())


def draw(one) -> np.ndarray:
    """One row of pictures, uint8 [S, 5 S, 3]."""
    best = int(np.argmax(np.where(one.labels == 1, one.maps["final"].max((1, 2)), -np.inf)))
    image, mask = (
        one.images[best],
        np.repeat(255 * one.masks[best][..., None], 3, -1).astype(np.uint8),
    )
    tiles = [image, mask]
    for name in ("memory", "corrected"):
        tiles.append(colorize(one.maps[name][best], 0.0, float(one.maps[name].max())))
    final = one.maps["final"]
    tiles.append(overlay(image, final[best], float(np.median(final)), float(final.max())))
    return np.concatenate(tiles, 1)


if __name__ == "__main__":
    main(sys.argv[1])
