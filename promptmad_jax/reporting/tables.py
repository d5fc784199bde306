"""The figures of an evaluation as a table for the terminal."""

import io
from collections.abc import Iterable, Iterator, Mapping

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
    "pixel_fpr_good": "P-FPR good",
    "image_accuracy": "I-acc",
    "image_precision": "I-prec",
    "image_recall": "I-rec",
    "image_f1": "I-F1",
    "image_fpr": "I-FPR",
}
# The metrics that papers lead with.
HEADLINES = ("image_auroc", "pixel_auroc", "pixel_ap")
TYPE_HEADINGS = {
    "auroc": "AUROC",
    "ap": "AP",
    "f1": "F1",
    "types_auroc": "AUROC, defects",
    "types_ap": "AP, defects",
    "types_f1": "F1, defects",
}


def percent(value: float | None) -> str:
    """Formats a fraction in percent, as a dash if it is undefined."""
    return "-" if value is None else f"{100 * value:.1f}"


def prompt_rows(prompts: Mapping) -> dict[str, dict[str, float]]:
    """Heading -> mean or deviation over the prompts of each metric, averaged over the classes."""
    return {
        f"{statistic} of {prompts['count']} prompts": {
            metric: value[statistic] for metric, value in prompts["mean"].items()
        }
        for statistic in ("mean", "std")
    }


def explain_undefined(undefined: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yields class, metrics and reason, the metrics with the same reason together."""
    for name, why in undefined.items():
        for reason in dict.fromkeys(why.values()):
            yield name, ", ".join(HEADINGS[key] for key in why if why[key] == reason), reason


def format_table(result: Mapping) -> str:
    """Formats metrics.json for the terminal, in percent.

    Returns:
      A row for each class, their mean, all classes pooled, the means of the other maps and of the
      compatibility modes, and mean and deviation over prompts; the figures at the thresholds; and
      the reasons why figures are undefined.
    """
    table = _class_table("percent; - is undefined", METRICS, result)
    table.add_row("pooled", *_cells(result["pooled"], METRICS))
    table.add_section()
    for name, block in (result["maps"] | result["compat"]).items():
        heading = "mean, memory alone" if name == "memory" else f"mean, {name}"
        table.add_row(heading, *_cells(block["mean"], METRICS), style="dim")
    if "prompts" in result:
        table.add_section()
        for heading, values in prompt_rows(result["prompts"]).items():
            table.add_row(heading, *_cells(values, METRICS), style="dim")
    text = _render(table, result["undefined"])
    if "thresholds" in result:
        block = result["thresholds"]
        caption = "percent, above the thresholds of each class"
        text += _render(_class_table(caption, THRESHOLD_METRICS, block), block["undefined"])
    return text


def format_types(multi_type: Mapping) -> str:
    """Formats the means of `multi_type` in metrics.json, a row for each vocabulary, in percent."""
    caption = "defect types by pixel, mean over the classes, percent"
    table = _table(caption, "vocabulary", TYPE_HEADINGS.values())
    for name, block in multi_type.items():
        if name != "words":
            table.add_row(name, *_cells(block["mean"], TYPE_HEADINGS))
    return _render(table, {})


def _class_table(caption: str, metrics: Iterable[str], block: Mapping) -> Table:
    table = _table(caption, "class", [HEADINGS[metric] for metric in metrics])
    for name, values in block["classes"].items():
        table.add_row(name, *_cells(values, metrics))
    table.add_section()
    table.add_row("mean", *_cells(block["mean"], metrics), style="bold")
    return table


def _table(caption: str, first: str, headings: Iterable[str]) -> Table:
    table = Table(caption=caption)
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _cells(values: Mapping[str, float | None], metrics: Iterable[str]) -> list[str]:
    return [percent(values[key]) if key in values else "" for key in metrics]


def _render(table: Table, undefined: Mapping[str, Mapping[str, str]]) -> str:
    # Plain text of fixed width: it goes into logs as well as to terminals.
    console = Console(file=io.StringIO(), width=140, color_system=None, force_terminal=False)
    console.print(table)
    for name, metrics, why in explain_undefined(undefined):
        console.file.write(f"{name}: {metrics} undefined: {why}\n")
    return console.file.getvalue()
