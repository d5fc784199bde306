"""Curves and galleries as PDF and PNG for papers and slides, drawn by matplotlib."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.reporting.chart_data import (
    PANELS,
    TRAINING_TITLES,
    Series,
    histogram,
    is_logarithmic,
    training_series,
)
from promptmad_jax.reporting.curves import Points, class_curves
from promptmad_jax.reporting.gallery import (
    HIGHEST,
    LOWEST,
    NORMAL,
    Example,
    Gallery,
    make_gallery,
)
from promptmad_jax.reporting.tables import HEADINGS, percent
from promptmad_jax.runtime.errors import UserError

# Type 42 fonts stay text.
STYLE = {"font.size": 8, "pdf.fonttype": 42}
GROUPS = {LOWEST: "lowest defect", NORMAL: "highest normal", HIGHEST: "highest defect"}
NORMAL_COLOUR, DEFECTIVE_COLOUR = "#2f6db5", "#ad3a1a"
DOTS_PER_INCH = 200


class Figures:
    """Draws the classes one by one; galleries are written at once, curves at the end.

    Args:
      directory: where the files go; made if it is missing.
      image_pool, aupro_limit: those of the protocol.

    Raises:
      UserError: if the folder cannot be made.
    """

    def __init__(self, directory: Path, image_pool: int, aupro_limit: float):
        self._directory = directory
        self._image_pool, self._aupro_limit = image_pool, aupro_limit
        self._curves: dict[str, dict[str, Points]] = {}
        self._scores: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{directory}: the folder cannot be made ({error.strerror}); choose another one"
            ) from error

    def add(self, class_maps: ClassMaps) -> None:
        """Draws the gallery of a class and keeps its curves."""
        name = class_maps.class_name
        scores = class_maps.scores(self._image_pool)
        gallery = make_gallery(class_maps, scores, self._image_pool)
        index = len(self._curves)
        self._curves[name] = class_curves(class_maps, scores, self._aupro_limit)
        self._scores[name] = scores, class_maps.labels.astype(bool)
        with matplotlib.rc_context(STYLE):
            self._save(draw_gallery(gallery), f"gallery_{index:02d}_{_file_name(name)}")

    def write(
        self, result: Mapping, history: Sequence[Mapping], thresholds: Mapping[str, float]
    ) -> None:
        """Draws `curves` and `histograms`, where there are test images, and `training`.

        Args:
          result: the content of metrics.json. history: the rows of metrics.jsonl.
          thresholds: class -> image threshold, where there are any.
        """
        with matplotlib.rc_context(STYLE):
            if self._scores:
                self._save(draw_curves(self._curves, result), "curves")
                self._save(draw_histograms(self._scores, thresholds), "histograms")
            series = training_series(history)
            if series:
                self._save(draw_training(series), "training")

    def _save(self, drawing: Figure, name: str) -> None:
        for kind, options in (("pdf", {"metadata": {"CreationDate": None}}), ("png", {})):
            path = self._directory / f"{name}.{kind}"
            try:
                drawing.savefig(path, dpi=DOTS_PER_INCH, bbox_inches="tight", **options)
            except OSError as error:
                raise UserError(
                    f"{path}: the figure cannot be written ({error.strerror}); make room or choose "
                    "another folder"
                ) from error


def draw_curves(curves: Mapping[str, Mapping[str, Points]], result: Mapping) -> Figure:
    """A panel for each kind of curve, all classes in each, with one legend."""
    drawing = Figure(figsize=(9.5, 6), layout="constrained")
    panels = drawing.subplots(2, 3)
    lines = {}
    for axes, (key, panel) in zip(panels.flat, PANELS.items(), strict=False):
        for index, (name, own) in enumerate(curves.items()):
            if key in own:
                style = {"color": _colour(index), "linestyle": ("-", "--")[index // 10 % 2]}
                lines[_plain(name)] = axes.plot(*own[key].T, linewidth=1.1, **style)[0]
        mean = f"mean {HEADINGS[panel.metric]} {percent(result['mean'][panel.metric])}"
        axes.set(title=f"{panel.title}, {mean}", xlabel=panel.x, ylabel=panel.y)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
    panels[1, 2].set_axis_off()
    if lines:
        panels[1, 2].legend(lines.values(), lines.keys(), loc="center", frameon=False)
    return drawing


def draw_histograms(
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]], thresholds: Mapping[str, float]
) -> Figure:
    """The image scores of each class: normal images up, defective ones down."""
    across = min(4, len(scores))
    down = -(-len(scores) // across)
    drawing = Figure(figsize=(2.4 * across, 1.8 * down), layout="constrained")
    panels = drawing.subplots(down, across, squeeze=False).flat
    for axes, (name, (values, labels)) in zip(panels, scores.items(), strict=False):
        edges, normal, defective = histogram(values, labels, thresholds.get(name))
        for counts, colour in ((normal, NORMAL_COLOUR), (-defective, DEFECTIVE_COLOUR)):
            axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colour)
        if name in thresholds:
            axes.axvline(thresholds[name], color="black", linestyle="--", linewidth=0.9)
        axes.axhline(0, color="grey", linewidth=0.6)
        axes.set(title=_plain(name), yticks=[])
    for axes in list(drawing.axes)[len(scores) :]:
        axes.set_axis_off()
    drawing.supxlabel("image score: normal up, defective down")
    return drawing


def draw_training(series: Mapping[str, Mapping[str, Series]]) -> Figure:
    """A panel for each chart of `training_series`."""
    drawing = Figure(figsize=(4 * len(series), 3), layout="constrained")
    panels = drawing.subplots(1, len(series), squeeze=False)[0]
    for axes, (chart, lines) in zip(panels, series.items(), strict=True):
        for name, (steps, values) in lines.items():
            axes.plot(steps, values, linewidth=1.2, label=_plain(HEADINGS.get(name, name)))
        axes.set(title=TRAINING_TITLES[chart], xlabel="step")
        axes.set_yscale("log" if is_logarithmic(lines) else "linear")
        axes.grid(alpha=0.3)
        axes.legend(framealpha=0.7)
    return drawing


def draw_gallery(gallery: Gallery) -> Figure:
    """A row for each example of a class, a column for each picture."""
    rows = [(title, example) for title, group in gallery.groups.items() for example in group]
    captions = list(rows[0][1].pictures)
    drawing = Figure(figsize=(1.3 * len(captions) + 1.4, 1.42 * len(rows)), layout="constrained")
    drawing.suptitle(_plain(gallery.class_name))
    panels = drawing.subplots(len(rows), len(captions), squeeze=False)
    for line, (title, example) in zip(panels, rows, strict=True):
        for axes, caption in zip(line, captions, strict=True):
            axes.imshow(example.pictures[caption], cmap="gray", interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        _outline(line[-1], example)
        label = f"{GROUPS[title]}\n{_plain(example.defect_type)}\nscore {example.score:.3g}"
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for axes, caption in zip(panels[0], captions, strict=True):
        axes.set_title(caption)
    return drawing


def _outline(axes: Axes, example: Example) -> None:
    """Draws the edge of the defect and the window of the score over the final map."""
    mask, window = example.pictures["mask"], example.window
    if mask.any() and not mask.all():
        axes.contour(mask, levels=[0.5], colors=["#64ff46"], linewidths=0.7)
    corner, width = (window.left - 0.5, window.top - 0.5), window.width
    square = matplotlib.patches.Rectangle(corner, width, width, fill=False, ec="white", lw=0.7)
    axes.add_patch(square)


def _plain(name: str) -> str:
    """Escapes dollar signs, which would start a formula."""
    return name.replace("$", r"\$")


def _colour(index: int):
    return matplotlib.colormaps["tab10"](index % 10)


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name)
