"""The figures of an evaluation as a table for the terminal."""

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from promptmad_jax.evaluation.blocks import METRICS
from promptmad_jax.evaluation.thresholds import THRESHOLD_METRICS

HEADINGS = {
    "image_auroc": "I-AUROC",
    "image_ap": "I-AP",
    "image_f1max": "I-F1max",
    "pixel_auroc": "P-AUROC",
    "pixel_ap": "P-AP",
    "pixel_f1max": "P-F1max",
    "pixel_aupro": "P-AUPRO",
    "pixel_aupro_05": "P-AUPRO 5%",
    "pixel_iou": "P-IoU",
    "pixel_precision": "P-prec",
    "pixel_recall": "P-rec",
    "pixel_f1": "P-F1",
    "pixel_fpr": "P-FPR",
    "image_accuracy": "I-acc",
    "image_precision": "I-prec",
    "image_recall": "I-rec",
    "image_f1": "I-F1",
    "image_fpr": "I-FPR",
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
      compatibility modes, and mean and deviation over prompts; the figures at the thresholds; then
      the reasons of what is undefined.
    """
    table = _table(METRICS, "percent; - is undefined")
    _add_classes(table, METRICS, result, decimals)
    table.add_row("pooled", *_cells(result["pooled"], METRICS, decimals))
    table.add_section()
    for name, block in (result["maps"] | result["compat"]).items():
        table.add_row(f"mean, {name}", *_cells(block["mean"], METRICS, decimals), style="dim")
    if "prompts" in result:
        _add_prompts(table, result["prompts"], decimals)
    text = _render(table) + _reasons(result["undefined"])
    if "thresholds" in result:
        text += _threshold_table(result["thresholds"], decimals)
    return text


def _threshold_table(block: dict, decimals: int) -> str:
    table = _table(THRESHOLD_METRICS, "percent, above the thresholds of each class")
    _add_classes(table, THRESHOLD_METRICS, block, decimals)
    return _render(table) + _reasons(block["undefined"])


def _table(metrics: Sequence[str], caption: str) -> Table:
    table = Table(caption=caption, show_footer=False)
    table.add_column("class", no_wrap=True)
    for metric in metrics:
        table.add_column(HEADINGS[metric], justify="right", no_wrap=True)
    return table


def _add_classes(table: Table, metrics: Sequence[str], block: dict, decimals: int) -> None:
    for name, values in block["classes"].items():
        table.add_row(name, *_cells(values, metrics, decimals))
    table.add_section()
    table.add_row("mean", *_cells(block["mean"], metrics, decimals), style="bold")


def _add_prompts(table: Table, prompts: dict, decimals: int) -> None:
    table.add_section()
    for statistic in ("mean", "std"):
        values = {key: value[statistic] for key, value in prompts["mean"].items()}
        heading = f"{statistic} of {prompts['count']} prompts"
        table.add_row(heading, *_cells(values, METRICS, decimals), style="dim")


def _cells(values: dict[str, float | None], metrics: Sequence[str], decimals: int) -> list[str]:
    return [percent(values[key], decimals) if key in values else "" for key in metrics]


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
