"""The table of the classes: a run's figures, published ones beside them, means below."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptmad_jax.reporting.pages.page import cell, escape, heading, table
from promptmad_jax.reporting.published import Published
from promptmad_jax.reporting.tables import HEADINGS, percent

# A difference of so many points gets the full colour.
FULL_COLOUR = 5.0
# Differences that one decimal does not show.
DRAW = 0.05
FILTER = '<input type="search" class="filter" placeholder="Filter" aria-label="Filter">'


@dataclass(frozen=True)
class Column:
    """A metric of the run, or of a publication where one is named."""

    metric: str
    published: Published | None = None


def columns_of(metrics: Sequence[str], published: Sequence[Published]) -> list[Column]:
    """Every metric, each followed by the publications that state it."""
    columns = []
    for metric in metrics:
        columns.append(Column(metric))
        columns += [Column(metric, entry) for entry in published if metric in entry.metrics]
    return columns


def class_table(result: Mapping, published: Sequence[Published], anchors: Mapping[str, str]) -> str:
    """The sortable, filterable table.

    Args:
      result: the content of metrics.json.
      anchors: class -> identifier of its part of the page.
    """
    columns = columns_of(list(result["mean"]), published)
    lowest = _lowest(result["classes"], result["mean"])
    rows = []
    for name, values in result["classes"].items():
        shown = escape(name)
        if name in anchors:
            shown = f'<a href="#{anchors[name]}">{shown}</a>'
        reasons = result["undefined"].get(name, {})
        cells = "".join(_class_cell(column, name, values, lowest, reasons) for column in columns)
        rows.append(f"<tr>{cell(shown, name)}{cells}</tr>")
    names = list(result["classes"])
    mean = "".join(_mean_cell(column, result["mean"], names) for column in columns)
    pooled = "".join(
        cell("" if column.published else percent(result["pooled"][column.metric]))
        for column in columns
    )
    foot = f"<tr>{cell('mean')}{mean}</tr><tr>{cell('pooled')}{pooled}</tr>"
    return FILTER + table(_head(columns), rows, foot, sortable=True)


def plain_table(first: str, rows: Mapping[str, Mapping], metrics: Sequence[str]) -> str:
    """Rows of figures, name -> metric -> value."""
    head = "".join([heading(first, False), *(heading(HEADINGS[m], False) for m in metrics)])
    body = []
    for name, values in rows.items():
        cells = (cell(percent(values[m]) if m in values else "") for m in metrics)
        body.append(f"<tr>{cell(escape(name))}{''.join(cells)}</tr>")
    return table(f"<tr>{head}</tr>", body)


def difference_cell(
    shown: str,
    points: float | None,
    style: str = "",
    title: str = "",
    gain: float | None = None,
    full: float = FULL_COLOUR,
) -> str:
    """A figure with a difference in points beside it, which also sorts and colours it.

    Args:
      points: the difference, None where there is none to tell.
      gain: how much better that is, where it is not the difference itself.
      full: the gain or loss that gets the full colour.
    """
    if points is None:
        return cell(shown, None, style, title)
    gain = points if gain is None else gain
    kind = "better" if gain > 0 else "worse" if gain < 0 else ""
    strength = min(1.0, abs(gain) / full)
    return (
        f'<td data-value="{points:.4f}" class="{style} difference {kind}" '
        f'style="--strength:{strength:.2f}" title="{escape(title)}">{shown}'
        f"<small>{signed(points)}</small></td>"
    )


def signed(points: float) -> str:
    """A difference with its sign, one decimal."""
    return "=" if abs(points) < DRAW else f"{points:+.1f}"


def _head(columns: Sequence[Column]) -> str:
    if not any(column.published for column in columns):
        inner = "".join(heading(HEADINGS[column.metric], True) for column in columns)
        return f"<tr>{heading('class', True)}{inner}</tr>"
    above, below = [], [heading("class", True)]
    for column in columns:
        if column.published:
            below.append(heading(escape(column.published.method), True))
            continue
        span = sum(other.metric == column.metric for other in columns)
        above.append(f'<th class="group" colspan="{span}">{HEADINGS[column.metric]}</th>')
        below.append(heading("ours", True))
    return f"<tr><th></th>{''.join(above)}</tr><tr>{''.join(below)}</tr>"


def _class_cell(
    column: Column, name: str, values: Mapping, lowest: Mapping, reasons: Mapping
) -> str:
    own, published = values[column.metric], column.published
    if published is None:
        style = "low" if name in lowest[column.metric] else ""
        return cell(percent(own), own, style, reasons.get(column.metric, ""))
    if name not in published.classes:
        return cell("", None, "published")
    figure = published.classes[name][column.metric]
    inferred = (name, column.metric) in published.inferred
    mark = '<abbr title="inferred, not stated by the source">*</abbr>' if inferred else ""
    return _published_cell(own, figure, mark)


def _mean_cell(column: Column, mean: Mapping, names: Sequence[str]) -> str:
    own = mean[column.metric]
    if column.published is None:
        return cell(percent(own))
    figure = column.published.mean_over(names, column.metric)
    return cell("", None, "published") if figure is None else _published_cell(own, figure)


def _published_cell(own: float | None, figure: float, mark: str = "") -> str:
    points = None if own is None else 100 * own - figure
    hint = "" if points is None else f"ours is {points:+.2f} points from {figure:g}"
    return difference_cell(f"{figure:.1f}{mark}", points, "published", hint)


def _lowest(classes: Mapping[str, Mapping], metrics: Sequence[str]) -> dict[str, set[str]]:
    """The classes with the lowest value of each metric, none where all are alike."""
    lowest = {}
    for metric in metrics:
        values = {n: row[metric] for n, row in classes.items() if row[metric] is not None}
        ends = {min(values.values()), max(values.values())} if values else set()
        lowest[metric] = {n for n, v in values.items() if len(ends) == 2 and v == min(ends)}
    return lowest
