"""The body of the page that compares runs; the first of them is the reference."""

from collections.abc import Sequence

from promptmad_jax.evaluation.image_scores import SCORES_FILE
from promptmad_jax.reporting.compared_runs import Disputed, Run, Shown, differing_settings
from promptmad_jax.reporting.pages.charts import COLOURS
from promptmad_jax.reporting.pages.class_table import DRAW, FILTER, difference_cell, signed
from promptmad_jax.reporting.pages.page import cell, escape, figure, heading, section, table
from promptmad_jax.reporting.pages.pictures import encode, encode_overlay
from promptmad_jax.reporting.tables import HEADINGS, percent

RANK_FULL_COLOUR = 50.0
HEADLINES = ("image_auroc", "pixel_auroc", "pixel_ap")
RANK_NOTE = (
    "Rank of the image among the test images of its class by score, 0 the lowest and 100 the "
    "highest, in every run; green where the rank moved to the right side: up for a defective "
    "image, down for a normal one."
)


def comparison_body(
    runs: Sequence[Run], images: Sequence[Disputed], unscored: Sequence[Run], paired: str
) -> str:
    """Means, wins, tables by class, disputed images and settings.

    Args:
      unscored: the runs without image scores, for which there are no disputed images.
      paired: HTML of the first of these images as each run sees them.
    """
    metrics = [m for m in runs[0].result["mean"] if all(m in r.result["mean"] for r in runs)]
    return "".join(
        [
            _header(runs),
            section("means", "Means over the classes", _means(runs, metrics)),
            section("wins", "Classes won and lost", _wins(runs, metrics)),
            section("classes", "Class by class", _by_metric(runs, metrics)),
            section(
                "images",
                "Images that the runs rank most differently",
                _images(runs, images, paired),
            )
            if not unscored
            else section("images", "Images", _no_images(unscored)),
            section("settings", "Settings that differ", _settings(runs)),
        ]
    )


def difference(run: Run, first: Run, name: str | None, metric: str) -> float | None:
    """Points of a run above the first, in a class or in the mean; None where undefined."""
    own, reference = (
        r.result["mean"][metric] if name is None else r.result["classes"][name][metric]
        for r in (run, first)
    )
    return None if own is None or reference is None else 100 * (own - reference)


def _header(runs: Sequence[Run]) -> str:
    first, counts = runs[0], runs[0].result["protocol"]["images"].values()
    images = sum(count["normal"] + count["defective"] for count in counts)
    title = " against ".join([first.label, " and ".join(run.label for run in runs[1:])])
    dataset = first.manifest["config"]["data"]["dataset"]
    dot = '<svg viewBox="0 0 10 10"><circle class="dot-{}" cx="5" cy="5" r="4"/></svg>'
    keys = "".join(
        f"<li>{dot.format(index % COLOURS)}<b>{escape(run.label)}</b>"
        f"{', the reference' if run is first else ''}</li>"
        for index, run in enumerate(runs)
    )
    return (
        f'<header><p class="eyebrow">Comparison</p><h1>{escape(title)}</h1><p class="lead">'
        f"{len(runs)} runs on {escape(dataset)}: {len(first.result['classes'])} classes, {images} "
        "test images. Differences are points above or below the reference.</p>"
        f'<ul class="legend runs">{keys}</ul></header>'
    )


def _means(runs: Sequence[Run], metrics: Sequence[str]) -> str:
    head = "".join([heading("run", False), *(heading(HEADINGS[m], False) for m in metrics)])
    rows = []
    for run in runs:
        cells = (_figure(run, runs[0], None, metric) for metric in metrics)
        rows.append(f"<tr>{cell(escape(run.label))}{''.join(cells)}</tr>")
    ends = "".join(f"<p>{_extremes(run, runs[0], metrics)}</p>" for run in runs[1:])
    return f'<p class="soft">Percent.</p>{table(f"<tr>{head}</tr>", rows)}{ends}'


def _extremes(run: Run, first: Run, metrics: Sequence[str]) -> str:
    """The classes where a run gains and loses most, in the figures that papers lead with."""
    words = []
    for metric in [metric for metric in HEADLINES if metric in metrics]:
        points = {n: difference(run, first, n, metric) for n in run.result["classes"]}
        known = {name: value for name, value in points.items() if value is not None}
        ends = sorted(known, key=known.__getitem__)[:: max(1, len(known) - 1)]
        far = [name for name in ends if abs(known[name]) >= DRAW]
        if far:
            most = " and ".join(f"{escape(name)} {signed(known[name])}" for name in far)
            words.append(f"{HEADINGS[metric]} in {most}")
    return f"<b>{escape(run.label)}</b>, largest differences: {'; '.join(words)}." if words else ""


def _wins(runs: Sequence[Run], metrics: Sequence[str]) -> str:
    head = "".join([heading("run", False), *(heading(HEADINGS[m], False) for m in metrics)])
    rows = []
    for run in runs[1:]:
        cells = (cell(_record(run, runs[0], metric)) for metric in metrics)
        rows.append(f"<tr>{cell(escape(run.label))}{''.join(cells)}</tr>")
    note = (
        f"Classes where the run is higher than {escape(runs[0].label)} : equal to one decimal : "
        "lower."
    )
    return f'<p class="soft">{note}</p>{table(f"<tr>{head}</tr>", rows)}'


def _record(run: Run, first: Run, metric: str) -> str:
    points = [difference(run, first, name, metric) for name in run.result["classes"]]
    known = [value for value in points if value is not None]
    won, lost = sum(v >= DRAW for v in known), sum(v <= -DRAW for v in known)
    return f'<b class="up">{won}</b> : {len(known) - won - lost} : <b class="down">{lost}</b>'


def _by_metric(runs: Sequence[Run], metrics: Sequence[str]) -> str:
    options = "".join(
        f'<option value="metric-{metric}">{HEADINGS[metric]}</option>' for metric in metrics
    )
    articles = "".join(
        f'<article id="metric-{metric}"><h3>{HEADINGS[metric]}</h3>'
        f"{FILTER}{_metric_table(runs, metric)}</article>"
        for metric in metrics
    )
    return (
        '<p class="soft">Percent. Click on a heading to sort; the later runs sort by their '
        'difference.</p><div class="picker"><select aria-label="metric">'
        f'{options}</select></div><div id="views" data-shown="0">{articles}</div>'
    )


def _metric_table(runs: Sequence[Run], metric: str) -> str:
    head = "".join([heading("class", True), *(heading(escape(run.label), True) for run in runs)])
    rows = []
    for name in runs[0].result["classes"]:
        cells = (_figure(run, runs[0], name, metric) for run in runs)
        rows.append(f"<tr>{cell(escape(name), name)}{''.join(cells)}</tr>")
    mean = "".join(_figure(run, runs[0], None, metric) for run in runs)
    return table(f"<tr>{head}</tr>", rows, f"<tr>{cell('mean')}{mean}</tr>", sortable=True)


def _figure(run: Run, first: Run, name: str | None, metric: str) -> str:
    block = run.result["mean"] if name is None else run.result["classes"][name]
    if run is first:
        return cell(percent(block[metric]), block[metric])
    return difference_cell(percent(block[metric]), difference(run, first, name, metric))


def _images(runs: Sequence[Run], images: Sequence[Disputed], paired: str) -> str:
    if not images:
        return '<p class="soft">All runs rank all images alike.</p>'
    words = ["image", *(escape(run.label) for run in runs)]
    head = "".join([*(heading(word, True) for word in words), heading("ranks", False)])
    rows = (_image_row(image) for image in images)
    ranks = table(f"<tr>{head}</tr>", rows, sortable=True)
    return f'<p class="soft">{RANK_NOTE}</p>{paired}{FILTER}{ranks}'


def _image_row(entry: Disputed) -> str:
    image, first = entry.image, entry.ranks[0]
    better = 1 if image.label else -1
    ranks = [cell(f"{first:.0f}", first)]
    for rank in entry.ranks[1:]:
        moved = rank - first
        ranks.append(
            difference_cell(f"{rank:.0f}", moved, gain=better * moved, full=RANK_FULL_COLOUR)
        )
    kind = f"{image.class_name}, {image.defect_type}"
    name = f"<code>{escape(image.filename)}</code><br><small>{escape(kind)}</small>"
    first_cell = cell(name, image.filename, style="name")
    return f"<tr>{first_cell}{''.join(ranks)}{cell(_dots(entry.ranks))}</tr>"


def _dots(ranks: Sequence[float]) -> str:
    dots = "".join(
        f'<circle class="dot-{index % COLOURS}" cx="{6 + 1.28 * rank:.1f}" cy="7" r="4.5"/>'
        for index, rank in enumerate(ranks)
    )
    return f'<svg class="dots" viewBox="0 0 140 14"><path class="grid" d="M6,7H134"/>{dots}</svg>'


def _no_images(unscored: Sequence[Run]) -> str:
    names = ", ".join(escape(run.label) for run in unscored)
    return (
        f'<p class="soft">No comparison image by image: {names} without {SCORES_FILE}, which '
        "<code>python -m promptmad_jax.evaluate</code> and "
        "<code>python -m promptmad_jax.report</code> write.</p>"
    )


def _settings(runs: Sequence[Run]) -> str:
    differ = differing_settings(runs)
    if not differ:
        return '<p class="soft">None: the configurations are equal.</p>'
    head = "".join([heading("setting", False), *(heading(escape(r.label), False) for r in runs)])
    rows = (
        f"<tr>{cell(f'<code>{escape(name)}</code>')}"
        f"{''.join(cell(f'<code>{escape(value)}</code>', style='wrap') for value in values)}</tr>"
        for name, values in differ.items()
    )
    return table(f"<tr>{head}</tr>", rows)


NOTE = (
    "The overlays lie on a scale of their run and class: clear at the median of normal pixels, "
    "full at the 99.9 % quantile of pseudo-anomalies. The blue line is the edge of the true "
    "defect, the white square the place that made the image score."
)


def paired_rows(
    runs: Sequence[Run], images: Sequence[Disputed], shown: Sequence[Sequence[Shown]]
) -> str:
    """The rows of the images.

    Args:
      shown: for each run, what it makes of these images.
    """
    rows = (_row(runs, image, [own[index] for own in shown]) for index, image in enumerate(images))
    return f'<p class="soft">{NOTE}</p><div class="card paired">{"".join(rows)}</div>'


def _row(runs: Sequence[Run], entry: Disputed, shown: Sequence[Shown]) -> str:
    image = entry.image
    pictures = [("image", encode(shown[0].image)), ("mask", encode(shown[0].mask))]
    for run, rank, one in zip(runs, entry.ranks, shown, strict=True):
        caption = f"{run.label}, rank {rank:.0f}"
        pictures.append((caption, encode_overlay(one.overlay, one.mask, one.window)))
    figures = "".join(figure(caption, uri, image.filename) for caption, uri in pictures)
    kind = f"{image.class_name}, {image.defect_type}"
    return (
        f'<div class="row"><p class="who"><b>{escape(kind)}</b> '
        f"<code>{escape(image.filename)}</code></p>"
        f'<div class="pictures">{figures}</div></div>'
    )
