"""The lowest and highest scores of a class's images, with maps, explanations and verdicts."""

from dataclasses import dataclass

import numpy as np

from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.regions import marking_levels
from promptmad_jax.reporting.explanations import (
    PARTS,
    Explainer,
    Window,
    highest_window,
    make_explainer,
)
from promptmad_jax.reporting.marking import colour_range, draw_verdict
from promptmad_jax.reporting.overlay import colorize

LOWEST, NORMAL = "Defects that scored lowest", "Highest normal scores"
HIGHEST = "Defects that scored highest"
ROWS = 3


@dataclass(frozen=True, eq=False)
class Example:
    """One test image with what the model made of it.

    Attributes:
      filename, defect_type: of the image.
      explanation: in words.
      pictures: caption -> uint8 [H, W, 3]; "mask" is bool [H, W].
      score, window: the image score and where it comes from, drawn on the picture "final".
    """

    filename: str
    defect_type: str
    explanation: str
    pictures: dict[str, np.ndarray]
    score: float | None = None
    window: Window | None = None


@dataclass(frozen=True, eq=False)
class Gallery:
    """The examples of one class by group, and the colour scale of each map, shared by all."""

    class_name: str
    groups: dict[str, list[Example]]
    scales: dict[str, tuple[float, float]]


def make_gallery(class_maps: ClassMaps, scores: np.ndarray, pool: int) -> Gallery:
    """Picks up to `ROWS` images of each group; see `choose`.

    Args:
      scores: image scores, [n]. pool: window of the image score.
    """
    explainer = make_explainer(class_maps, scores)
    scales = {name: colour_scale(class_maps, name) for name in class_maps.maps}
    groups = {
        title: [_example(class_maps, explainer, index, scales, pool) for index in indices]
        for title, indices in choose(scores, class_maps.labels).items()
    }
    return Gallery(class_maps.class_name, groups, scales)


def choose(scores: np.ndarray, labels: np.ndarray, rows: int = ROWS) -> dict[str, list[int]]:
    """The indices of the images to show by title of the group, the most extreme score first.

    No image comes twice.
    """
    ascending = np.argsort(scores, kind="stable")
    defective = [int(i) for i in ascending if labels[i]]
    normal = [int(i) for i in ascending if not labels[i]]
    lowest = defective[: min(rows, (len(defective) + 1) // 2)]
    highest = defective[len(lowest) :][::-1][:rows]
    return {LOWEST: lowest, NORMAL: normal[::-1][:rows], HIGHEST: highest}


def verdict(group: str, score: float, threshold: float) -> str:
    """The word for an image of a group at the threshold: "missed", "false alarm" or a right one."""
    if group == NORMAL:
        return "false alarm" if score > threshold else "called normal"
    return "found" if score > threshold else "missed"


def colour_scale(class_maps: ClassMaps, name: str) -> tuple[float, float]:
    """The colour scale of one map, shared by all images of the class.

    That of the final map begins at the normal level and ends at twice the height of the threshold
    of regions above it, as `mark_regions` colours. That of others, and of a final map without
    thresholds, goes from the median of the normal images' pixels to the larger of their 99.9 %
    quantile and the 99 % quantile of the pixels on defects; without normal images, from that of the
    pixels off the defects.
    """
    if name == "final" and class_maps.thresholds is not None:
        levels = marking_levels(class_maps.thresholds, class_maps.normal_level, score=np.inf)
        return colour_range(*levels)
    values = class_maps.maps[name]
    normal = values[~class_maps.labels.astype(bool)].ravel()
    background = normal if normal.size else values[~class_maps.masks]
    background = background if background.size else values.ravel()
    low, high = np.quantile(background, [0.5, 0.999])
    if class_maps.masks.any():
        high = max(high, np.quantile(values[class_maps.masks], 0.99))
    low, high = float(low), float(high)
    return (low, high) if high > low else (low, low + max(abs(low), 1.0) * 1e-3)


def _example(
    class_maps: ClassMaps, explainer: Explainer, index: int, scales: dict, pool: int
) -> Example:
    image, maps = class_maps.images[index], class_maps.maps
    pictures = {"image": image, "mask": class_maps.masks[index]}
    for name in PARTS:
        if name in maps:
            pictures[name] = colorize(maps[name][index], *scales[name])
    final, score = maps["final"][index], float(explainer.scores[index])
    pictures["final"] = draw_verdict(image, final, score, class_maps.thresholds, scales["final"])
    window = highest_window(maps["final"][index], pool)
    return Example(
        class_maps.filenames[index],
        class_maps.defect_types[index],
        explainer.explain(index, window),
        pictures,
        score,
        window,
    )
