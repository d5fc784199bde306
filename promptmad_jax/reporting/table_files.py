"""The table of the classes as CSV and as LaTeX."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from promptmad_jax.reporting.class_table import make_class_table, to_percent
from promptmad_jax.reporting.published import Published
from promptmad_jax.reporting.tables import HEADINGS
from promptmad_jax.runtime.files import write_text_atomic

_ESCAPES = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {character: f"\\{character}" for character in "&%$#_{}"}
)

Rows = dict[str, list[float | None]]


def write_tables(directory: Path, result: Mapping, published: Sequence[Published] = ()) -> None:
    """Writes `classes` and `parts` as `.csv` and `.tex`, in percent.

    Args:
      directory: the output folder. result: the content of metrics.json.
      published: adds columns to the classes.
    """
    table, metrics = make_class_table(result, published), list(result["mean"])
    classes = {name: [f.value for f in row] for name, row in table.classes.items()}
    mean = {"mean": [figure.value for figure in table.mean]}
    blocks = {"final": result} | result["maps"] | result["compat"]
    parts = {
        name: [to_percent(block["mean"].get(metric)) for metric in metrics]
        for name, block in blocks.items()
    }
    headings = [
        f"{HEADINGS[c.metric]} {c.published.method}" if c.published else HEADINGS[c.metric]
        for c in table.columns
    ]
    plain = [HEADINGS[metric] for metric in metrics]
    _write(directory / "classes", ["class", *headings], classes, mean)
    _write(directory / "parts", ["map", *plain], parts, {})


def _latex_table(headings: Sequence[str], body: Rows, foot: Rows) -> str:
    """A booktabs table; names are escaped."""
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}", r"\toprule"]
    lines += [_latex_row(headings), r"\midrule", *_latex_figures(body)]
    if foot:
        lines += [r"\midrule", *_latex_figures(foot)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex_figures(rows: Rows) -> Iterator[str]:
    for name, values in rows.items():
        yield _latex_row([name, *("--" if value is None else f"{value:.1f}" for value in values)])


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(_ESCAPES) for cell in cells) + r" \\"


def _write(path: Path, headings: Sequence[str], body: Rows, foot: Rows) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(headings)
    for name, values in (body | foot).items():
        writer.writerow([name, *("" if v is None else f"{v:.4f}" for v in values)])
    write_text_atomic(path.with_suffix(".csv"), text.getvalue())
    write_text_atomic(path.with_suffix(".tex"), _latex_table(headings, body, foot))
