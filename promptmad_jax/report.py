"""Rewrites the report of a finished run, and its figures as files.

    promptmad report --workdir=runs/mine [--figures=figures]

--figures adds curves and galleries as PDF and PNG, and tables as CSV and LaTeX.
"""

from pathlib import Path

from promptmad_jax.runtime import cli
from promptmad_jax.runtime.paths import define_path

_WORKDIR = define_path("workdir", "the working directory of an evaluated run", required=True)
_FIGURES = define_path("figures", "folder for PDF, PNG, CSV and LaTeX files")
_DATA_DIR = define_path("data_dir", "folder of the prepared data set, if it has moved")
_BACKBONE_WEIGHTS = define_path(
    "backbone_weights", "the backbone's or CLIP's weights (file, folder or hub id), if they moved"
)


def main(argv: list[str]) -> None:
    """Reads the flags, then writes the report."""
    from promptmad_jax.commands.report import rebuild_report
    from promptmad_jax.config import relocated
    from promptmad_jax.runs.workdir import Workdir

    del argv
    files = Workdir(_WORKDIR.value)
    config = relocated(files.config(), _DATA_DIR.value, _BACKBONE_WEIGHTS.value)
    figures = Path(_FIGURES.value) if _FIGURES.value else None
    print(f"report: {rebuild_report(config, files, figures)}")
    if figures:
        print(f"figures: {figures}")


if __name__ == "__main__":
    cli.run(main)
