"""The curves and histograms of the classes, one class in front of the others."""

from collections.abc import Iterator, Mapping, Sequence

from promptmad_jax.reporting.pages.charts import draw_classes, draw_histogram
from promptmad_jax.reporting.pages.class_view import ClassView
from promptmad_jax.reporting.tables import HEADINGS, percent

FALSE_POSITIVES = "false-positive rate"
# Curve -> title, metric that is its area, and the names of its axes.
CHARTS = {
    "pixel_roc": ("Pixel ROC", "pixel_auroc", FALSE_POSITIVES, "true-positive rate"),
    "pixel_pr": ("Pixel PR", "pixel_ap", "recall", "precision"),
    "pixel_pro": ("Pixel PRO", "pixel_aupro", FALSE_POSITIVES, "per-region overlap"),
    "image_roc": ("Image ROC", "image_auroc", FALSE_POSITIVES, "true-positive rate"),
    "image_pr": ("Image PR", "image_ap", "recall", "precision"),
}


def charts_block(
    views: Sequence[ClassView], result: Mapping, thresholds: Mapping[str, float], shown: int
) -> str:
    """The curves of all classes, one drawing each, and their histograms; `shown` is in front."""
    names, parts = [view.name for view in views], []
    for key, (title, metric, x, y) in CHARTS.items():
        curves = {i: view.curves[key] for i, view in enumerate(views) if key in view.curves}
        if not curves:
            continue
        areas = (f"{HEADINGS[metric]} {percent(result['classes'][name][metric])}" for name in names)
        drawing = draw_classes(curves, names, (title, x, y))
        parts.append(_chart(title, _switched("b", areas, shown), drawing))
    histograms = (
        draw_histogram(
            view.scores, view.labels, thresholds.get(view.name), f"Image scores of {view.name}"
        )
        for view in views
    )
    keys = (_histogram_key(view, thresholds.get(view.name)) for view in views)
    histogram = _switched("div", histograms, shown)
    parts.append(_chart("Image scores", _switched("b", keys, shown), histogram))
    return f'<div class="charts" id="charts">{"".join(parts)}</div>'


def _histogram_key(view: ClassView, threshold: float | None) -> str:
    words = (
        f'<span class="normal">{int((~view.labels).sum())} normal ↑</span> '
        f'<span class="defective">{int(view.labels.sum())} defective ↓</span>'
    )
    return words if threshold is None else f"{words} threshold {threshold:.4g}"


def _chart(title: str, figures: str, drawing: str) -> str:
    caption = f"<figcaption>{title} {figures}</figcaption>"
    return f'<figure class="chart">{caption}{drawing}</figure>'


def _switched(tag: str, contents: Iterator[str], shown: int) -> str:
    """One element for each class, of which the page shows one."""
    return "".join(
        f'<{tag} data-class="{index}"{"" if index == shown else " hidden"}>{content}</{tag}>'
        for index, content in enumerate(contents)
    )
