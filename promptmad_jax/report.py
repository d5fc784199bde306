"""Rewrites the report of a finished run, and its figures as files.

    promptmad report --workdir=runs/mine [--figures=figures]

--figures adds curves and galleries as PDF and PNG, and tables as CSV and LaTeX.
"""

from pathlib import Path

from absl import flags

from promptmad_jax.runtime import cli

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "the working directory of an evaluated run", required=True
)
_FIGURES = flags.DEFINE_string("figures", "", "folder for PDF, PNG, CSV and LaTeX files")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder of the prepared data set, if it has moved")


def main(argv: list[str]) -> None:
    """Reads the flags, then writes the report."""
    from promptmad_jax.commands.report import rebuild_report
    from promptmad_jax.config import with_data_dir
    from promptmad_jax.runs.workdir import Workdir

    del argv
    files = Workdir(_WORKDIR.value)
    config = with_data_dir(files.config(), _DATA_DIR.value)
    figures = Path(_FIGURES.value) if _FIGURES.value else None
    print(f"report: {rebuild_report(config, files, figures)}")
    if figures:
        print(f"figures: {figures}")


if __name__ == "__main__":
    cli.run(main)
