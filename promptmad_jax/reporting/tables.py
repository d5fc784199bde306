"""The figures of an evaluation as a table for the terminal."""

import io
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from promptmad_jax.evaluation.metrics.blocks import METRICS
from promptmad_jax.evaluation.metrics.thresholds import THRESHOLD_METRICS

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


TYPE_HEADINGS = {
    "auroc": "AUROC",
    "ap": "AP",
    "f1": "F1",
    "types_auroc": "AUROC, defects",
    "types_ap": "AP, defects",
    "types_f1": "F1, defects",
}


def percent(value: float | None, decimals: int = 1) -> str:
    """A fraction in percent, a dash where it is undefined."""
    return "-" if value is None else f"{100 * value:.{decimals}f}"


def prompt_rows(prompts: Mapping) -> dict[str, dict[str, float]]:
    """Mean and deviation over prompts of each metric's mean over the classes, by their headings."""
    return {
        f"{statistic} of {prompts['count']} prompts": {
            metric: value[statistic] for metric, value in prompts["mean"].items()
        }
        for statistic in ("mean", "std")
    }


def explain_undefined(undefined: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Class, metrics and reason of what is undefined, the metrics of one reason together."""
    for name, why in undefined.items():
        for reason in dict.fromkeys(why.values()):
            yield name, ", ".join(HEADINGS[key] for key in why if why[key] == reason), reason


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


def format_types(multi_type: dict, decimals: int = 1) -> str:
    """The means of `multi_type` of metrics.json, a row a vocabulary, in percent."""
    table = Table(caption="defect types by pixel, mean over the classes, percent")
    table.add_column("vocabulary", no_wrap=True)
    for heading in TYPE_HEADINGS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for name, block in multi_type.items():
        if name != "words":
            table.add_row(name, *_cells(block["mean"], list(TYPE_HEADINGS), decimals))
    return _render(table)


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
    for heading, values in prompt_rows(prompts).items():
        table.add_row(heading, *_cells(values, METRICS, decimals), style="dim")


def _cells(values: dict[str, float | None], metrics: Sequence[str], decimals: int) -> list[str]:
    return [percent(values[key], decimals) if key in values else "" for key in metrics]


def _render(table: Table) -> str:
    # Plain text of fixed width: it goes into logs as well as to terminals.
    console = Console(file=io.StringIO(), width=140, color_system=None, force_terminal=False)
    console.print(table)
    return console.file.getvalue()


def _reasons(undefined: dict[str, dict[str, str]]) -> str:
    rows = explain_undefined(undefined)
    return "".join(f"{name}: {metrics} undefined: {why}\n" for name, metrics, why in rows)
