"""Benchmark rows as a table in the terminal."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from promptmad_jax.benchmarking.rows import Row

_LOG_WIDTH = 200
# Heading -> field and format.
_COLUMNS = {
    "case": ("case", "{}"),
    "batch": ("batch_size", "{}"),
    "px": ("image_size", "{}"),
    "classes": ("classes", "{}"),
    "dtype": ("dtype", "{}"),
    "devices": ("devices", "{}"),
    "median s": ("median_s", "{:.4g}"),
    "images/s": ("images_per_s", "{:.4g}"),
    "GFLOP/image": ("gflop_per_image", "{:.3g}"),
    "MB/image": ("mb_per_image", "{:.3g}"),
    "of peak": ("share_of_peak", "{:.0%}"),
    "of time": ("share_of_time", "{:.0%}"),
    "compile s": ("compile_s", "{:.3g}"),
    "host MiB": ("peak_rss_mib", "{:.0f}"),
    "device MiB": ("peak_device_mib", "{:.0f}"),
}


def print_table(rows: Sequence[Row]) -> None:
    """Prints the rows on standard error, without columns that are empty in all of them."""
    table = Table(title=rows[0]["device"], title_justify="left")
    has_values = lambda field: any(row.get(field) is not None for row in rows)
    columns = {heading: c for heading, c in _COLUMNS.items() if has_values(c[0])}
    for heading in columns:
        table.add_column(heading, justify="left" if heading == "case" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(row.get(field), form) for field, form in columns.values()))
    # In a log, rich would cut the table to 80 columns.
    Console(stderr=True, width=None if sys.stderr.isatty() else _LOG_WIDTH).print(table)


def _cell(value: object, form: str) -> str:
    return "" if value is None else form.format(value)
