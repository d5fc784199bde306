"""The figures of an evaluation as a table for the terminal."""

import io

from rich.console import Console
from rich.table import Table

from promptmad_jax.evaluation.blocks import METRICS

HEADINGS = {
    "image_auroc": "I-AUROC",
    "image_ap": "I-AP",
    "image_f1max": "I-F1max",
    "pixel_auroc": "P-AUROC",
    "pixel_ap": "P-AP",
    "pixel_f1max": "P-F1max",
    "pixel_aupro": "P-AUPRO",
}


def percent(value: float | None, decimals: int = 1) -> str:
    """A fraction in percent, a dash where it is undefined."""
    return "-" if value is None else f"{100 * value:.{decimals}f}"


def format_table(result: dict, decimals: int = 1) -> str:
    """Formats the content of metrics.json, in percent.

    Args:
      result: from `Evaluator.result`.
      decimals: 1 or 2.

    Returns:
      A row for each class, the mean, all classes pooled, the means of the other maps and of the
      compatibility modes, then the reasons of what is undefined.
    """
    table = Table(caption="percent; - is undefined", show_footer=False)
    table.add_column("class", no_wrap=True)
    for metric in METRICS:
        table.add_column(HEADINGS[metric], justify="right", no_wrap=True)
    for name, values in result["classes"].items():
        table.add_row(name, *_cells(values, decimals))
    table.add_section()
    table.add_row("mean", *_cells(result["mean"], decimals), style="bold")
    table.add_row("pooled", *_cells(result["pooled"], decimals))
    table.add_section()
    for name, block in (result["maps"] | result["compat"]).items():
        table.add_row(f"mean, {name}", *_cells(block["mean"], decimals), style="dim")
    return _render(table) + _reasons(result["undefined"])


def _cells(values: dict[str, float | None], decimals: int) -> list[str]:
    return [percent(values[key], decimals) if key in values else "" for key in METRICS]


def _render(table: Table) -> str:
    # Plain text of fixed width: it goes into logs as well as to terminals.
    console = Console(file=io.StringIO(), width=140, color_system=None, force_terminal=False)
    console.print(table)
    return console.file.getvalue()


def _reasons(undefined: dict[str, dict[str, str]]) -> str:
    lines = []
    for name, reasons in undefined.items():
        for reason in dict.fromkeys(reasons.values()):
            metrics = ", ".join(HEADINGS[key] for key in reasons if reasons[key] == reason)
            lines.append(f"{name}: {metrics} undefined: {reason}\n")
    return "".join(lines)
