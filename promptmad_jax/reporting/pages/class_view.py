"""One class in pictures: verdict, defect types, curves, diffusion steps, gallery."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptmad_jax.reporting.curves import Points
from promptmad_jax.reporting.diffusion_strip import Strip
from promptmad_jax.reporting.gallery import FALSE_ALARMS, HITS, MISSES, Gallery, Row
from promptmad_jax.reporting.pages.page import escape, facts, figure
from promptmad_jax.reporting.pages.pictures import encode, encode_overlay
from promptmad_jax.reporting.tables import HEADINGS, percent

GROUP_NOTES = {
    MISSES: "defective images with the lowest scores",
    FALSE_ALARMS: "normal images with the highest scores",
    HITS: "defective images with the highest scores",
}
SCALE_NOTE = (
    "Colours have one scale for each class and map: dark is the median of the normal images' "
    "pixels, bright the larger of their 99.9 % quantile and the 99 % quantile on defects. So "
    "brightness can be compared down a column. “final” lays the final map over the image: "
    "the blue line is the edge of the true defect, the white square the place with the highest "
    "average, which is the image score unless the model has one of its own. Diffusion steps "
    "have the scale of both the coarse and the refined map. Click on a picture to enlarge it."
)


@dataclass(frozen=True, eq=False)
class ClassView:
    """What the page keeps of a class: figures, and pictures as finished HTML.

    Attributes:
      name: of the class. anchor: identifier of its part of the page.
      scores: float [n]. labels: bool [n]. defect_types: n words.
      curves: as `reporting.curves.class_curves`.
      rows: group of the gallery -> HTML of its rows.
      scales: map -> its colour scale.
      strip: HTML of the diffusion steps, or nothing.
    """

    name: str
    anchor: str
    scores: np.ndarray
    labels: np.ndarray
    defect_types: tuple[str, ...]
    curves: Mapping[str, Points]
    rows: Mapping[str, Sequence[str]]
    scales: Mapping[str, tuple[float, float]]
    strip: str


def gallery_rows(gallery: Gallery) -> dict[str, list[str]]:
    """The rows of each group as HTML."""
    return {title: [_row(row) for row in rows] for title, rows in gallery.groups.items()}


def strip_html(strip: Strip | None) -> str:
    """The diffusion steps as HTML, nothing where there are none."""
    if strip is None:
        return ""
    figures = "".join(
        figure(caption, encode(picture), strip.filename)
        for caption, picture in strip.pictures.items()
    )
    return (
        "<h4>Diffusion steps<span>the image on whose defect they changed the map most</span></h4>"
        f'<p class="who"><b>{escape(strip.defect_type)}</b> <code>{escape(strip.filename)}</code>'
        f'<span class="reason">{escape(strip.summary)}</span></p>'
        f'<div class="steps">{figures}</div>'
    )


def class_article(view: ClassView, values: Mapping, threshold: float | None) -> str:
    """The part of the page that shows one class."""
    parts = [
        f'<article class="card class" id="{view.anchor}" data-name="{escape(view.name)}">',
        f"<h3>{escape(view.name)}</h3>",
        facts({HEADINGS[metric]: percent(value) for metric, value in values.items()}),
        f'<p class="verdict">{verdict(view)}{_at_threshold(view, threshold)}</p>',
        _titled_types(view),
        '<div class="slot"></div>',
        *_groups(view),
        view.strip,
        "</article>",
    ]
    return "".join(parts)


def picker(views: Sequence[ClassView]) -> str:
    """Buttons and list that bring a class to the front."""
    options = "".join(
        f'<option value="{view.anchor}">{escape(view.name)}</option>' for view in views
    )
    return (
        '<div class="picker"><button type="button" data-step="-1" aria-label="previous class">'
        f'&lsaquo;</button><select aria-label="class">{options}</select>'
        '<button type="button" data-step="1" aria-label="next class">&rsaquo;</button></div>'
    )


def verdict(view: ClassView) -> str:
    """How well the image scores part the class, in words."""
    normal, defective = view.scores[~view.labels], view.scores[view.labels]
    if not len(normal) or not len(defective):
        side = "normal" if len(defective) else "defective"
        return f"There is no {side} image to compare with."
    hidden = int((defective <= normal.max()).sum())
    if not hidden:
        return f"All {len(defective)} defective images score above all {len(normal)} normal ones."
    return (
        f"{hidden} of {len(defective)} defective images score no higher than the highest of the "
        f"{len(normal)} normal ones: they cannot be found without a false alarm."
    )


def _at_threshold(view: ClassView, threshold: float | None) -> str:
    if threshold is None:
        return ""
    raised = view.scores > threshold
    alarms, missed = int(raised[~view.labels].sum()), int((~raised)[view.labels].sum())
    return (
        f" At the threshold, {alarms} of {int((~view.labels).sum())} normal images raise an alarm "
        f"and {missed} of {int(view.labels.sum())} defective ones are missed."
    )


def _titled_types(view: ClassView) -> str:
    bars = types(view)
    note = "image AUROC against the normal images, number of images"
    return f"<h4>Defect types<span>{note}</span></h4>{bars}" if bars else ""


def types(view: ClassView) -> str:
    """A bar for each type of defect, where there are several: how often it beats a normal image."""
    normal = view.scores[~view.labels]
    kinds = np.array(view.defect_types)
    shares = {}
    for kind in dict.fromkeys(kinds[view.labels].tolist()):
        own = view.scores[view.labels & (kinds == kind)]
        if len(normal):
            wins = (own[:, None] > normal) + 0.5 * (own[:, None] == normal)
            shares[kind] = len(own), float(wins.mean())
    items = (
        f'<li><span>{escape(kind)}</span><i style="--share:{share:.3f}"></i>'
        f"<b>{percent(share)}</b><small>{count}</small></li>"
        for kind, (count, share) in sorted(shares.items(), key=lambda item: item[1][1])
    )
    return f'<ul class="types">{"".join(items)}</ul>' if len(shares) > 1 else ""


def _groups(view: ClassView) -> Iterator[str]:
    for title, rows in view.rows.items():
        if rows:
            yield f"<h4>{title}<span>{GROUP_NOTES[title]}</span></h4>"
            yield from rows
    scales = ", ".join(
        f"{escape(name)} {low:.3g} to {high:.3g}" for name, (low, high) in view.scales.items()
    )
    yield f'<p class="soft scales">Colour scales: {scales}.</p>'


def _row(row: Row) -> str:
    figures = "".join(
        figure(caption, _encode(caption, picture, row), row.filename)
        for caption, picture in row.pictures.items()
    )
    return (
        f'<div class="row"><p class="who"><b>{escape(row.defect_type)}</b> '
        f'<code>{escape(row.filename)}</code><span class="reason">{escape(row.reason)}</span>'
        f'<span class="score">score {row.score:.4g}</span></p>'
        f'<div class="pictures">{figures}</div></div>'
    )


def _encode(caption: str, picture: np.ndarray, row: Row) -> str:
    if caption == "final":
        return encode_overlay(picture, row.mask, row.window)
    return encode(picture)
