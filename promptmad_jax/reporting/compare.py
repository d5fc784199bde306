"""The page that compares several runs."""

from collections.abc import Callable, Sequence
from pathlib import Path

from promptmad_jax.reporting.pages.comparison import comparison_body
from promptmad_jax.reporting.pages.page import escape, make_page, write_page
from promptmad_jax.reporting.pages.paired import paired_rows
from promptmad_jax.reporting.runs import Disputed, Key, Run, Shown, disputed, load_runs
from promptmad_jax.runtime.errors import UserError

# (folder of a run, images) to what it makes of them.
Pictures = Callable[[Path, Sequence[Key]], Sequence[Shown]]


def compare_runs(
    directories: Sequence[str | Path],
    output: str | Path,
    pictures: Pictures | None = None,
    count: int = 0,
) -> Path:
    """Writes the comparison of two or more runs, the first of which is the reference.

    Args:
      pictures, count: show so many images that the runs disagree on. Where a run cannot give them,
        terminal and page say why, and the rest stands without.

    Returns:
      The path of the page.

    Raises:
      UserError: fewer than two runs, a run without stored figures, or runs on different data.
    """
    if len(directories) < 2:
        raise UserError("give the folders of two or more runs: compare DIR_A DIR_B --output=DIR")
    runs = load_runs([Path(directory) for directory in directories])
    unscored = [run for run in runs if run.scores is None]
    images = [] if unscored else disputed(runs)
    paired = _paired(runs, images[:count], pictures) if pictures and images[:count] else ""
    body = comparison_body(runs, images, unscored, paired)
    title = " and ".join(run.label for run in runs)
    return write_page(Path(output), make_page(title, body))


def _paired(runs: Sequence[Run], images: Sequence[Disputed], pictures: Pictures) -> str:
    keys = [(entry.image.class_name, entry.image.filename) for entry in images]
    shown = []
    for run in runs:
        try:
            shown.append(pictures(run.path, keys))
        except UserError as error:
            print(f"no pictures of single images: {error}")
            return f'<p class="soft">No pictures: {escape(str(error))}</p>'
    return paired_rows(runs, images, shown)
