"""The table of the classes as CSV and as LaTeX."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from promptmad_jax.reporting.pages.class_table import Column, columns_of
from promptmad_jax.reporting.published import Published
from promptmad_jax.reporting.tables import HEADINGS
from promptmad_jax.runtime.files import write_text_atomic

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}

Rows = dict[str, list[float | None]]


def write_tables(
    directory: Path, result: Mapping, published: Sequence[Published] = ()
) -> list[Path]:
    """Writes `classes` and `parts`, each as `.csv` and `.tex`; percent, empty where undefined.

    Args:
      directory: where they go. result: the content of metrics.json.
      published: adds their columns to the classes.
    """
    metrics = list(result["mean"])
    columns = columns_of(metrics, published)
    names = list(result["classes"])
    classes = {
        name: [_figure(column, values, name, names) for column in columns]
        for name, values in result["classes"].items()
    }
    mean = {"mean": [_figure(column, result["mean"], None, names) for column in columns]}
    blocks = {"final": result} | result["maps"] | result["compat"]
    parts = {
        name: [_percent(block["mean"].get(metric)) for metric in metrics]
        for name, block in blocks.items()
    }
    headings = [_heading(column) for column in columns]
    plain = [HEADINGS[metric] for metric in metrics]
    return [
        *_write(directory / "classes", ["class", *headings], classes, mean),
        *_write(directory / "parts", ["map", *plain], parts, {}),
    ]


def latex_table(headings: Sequence[str], body: Rows, foot: Rows) -> str:
    """A booktabs table; names are escaped."""
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}", r"\toprule"]
    lines.append(_latex_row(escape_latex(heading) for heading in headings))
    lines.append(r"\midrule")
    lines += [_latex_figures(name, values) for name, values in body.items()]
    if foot:
        lines.append(r"\midrule")
        lines += [_latex_figures(name, values) for name, values in foot.items()]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def escape_latex(text: str) -> str:
    """The text with LaTeX's own characters escaped."""
    return "".join(_LATEX.get(character, character) for character in text)


def _write(path: Path, headings: Sequence[str], body: Rows, foot: Rows) -> list[Path]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(headings)
    for name, values in (body | foot).items():
        writer.writerow([name, *("" if v is None else f"{v:.4f}" for v in values)])
    paths = [path.with_suffix(".csv"), path.with_suffix(".tex")]
    write_text_atomic(paths[0], text.getvalue())
    write_text_atomic(paths[1], latex_table(headings, body, foot))
    return paths


def _latex_figures(name: str, values: Sequence[float | None]) -> str:
    figures = ("--" if value is None else f"{value:.1f}" for value in values)
    return _latex_row([escape_latex(name), *figures])


def _latex_row(cells) -> str:
    return " & ".join(cells) + r" \\"


def _heading(column: Column) -> str:
    own = HEADINGS[column.metric]
    return own if column.published is None else f"{own} {column.published.method}"


def _figure(column: Column, values: Mapping, name: str | None, names: Sequence[str]):
    """The figure of a class, or the mean over `names` where there is no name."""
    if column.published is None:
        return _percent(values[column.metric])
    if name is None:
        return column.published.mean_over(names, column.metric)
    published = column.published.classes
    return published[name][column.metric] if name in published else None


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
