"""The page that compares several runs."""

from collections.abc import Sequence
from pathlib import Path

from promptmad_jax.reporting.pages.comparison import comparison_body
from promptmad_jax.reporting.pages.page import make_page, write_page
from promptmad_jax.reporting.runs import disputed, load_runs
from promptmad_jax.runtime.errors import UserError


def compare_runs(directories: Sequence[str | Path], output: str | Path) -> Path:
    """Writes the comparison of two or more runs, the first of which is the reference.

    Returns:
      The path of the page.

    Raises:
      UserError: fewer than two runs, a run without stored figures, or runs on different data.
    """
    if len(directories) < 2:
        raise UserError("give the folders of two or more runs: compare DIR_A DIR_B --output=DIR")
    runs = load_runs([Path(directory) for directory in directories])
    unscored = [run for run in runs if run.scores is None]
    body = comparison_body(runs, [] if unscored else disputed(runs), unscored)
    title = " and ".join(run.label for run in runs)
    return write_page(Path(output), make_page(title, body))
