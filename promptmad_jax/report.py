"""Writes the report of a finished run again, and its figures as files.

python -m promptmad_jax.report --workdir=DIR [--figures=DIR2]

`--figures` adds curves and galleries as PDF and PNG, and tables as CSV and LaTeX.
"""

import dataclasses
from pathlib import Path

from absl import flags

from promptmad_jax.runtime import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "the working directory of a run that was evaluated")
_FIGURES = flags.DEFINE_string("figures", "", "where PDF, PNG, CSV and LaTeX files go")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "where the prepared data set lies, if it has moved")


def main(argv: list[str]) -> None:
    """Reads the flags, then writes the report."""
    from promptmad_jax.commands.report import rebuild_report
    from promptmad_jax.runs.workdir import Workdir

    del argv
    files = Workdir(_WORKDIR.value)
    config = files.config()
    if _DATA_DIR.value:
        config = dataclasses.replace(
            config, data=dataclasses.replace(config.data, data_dir=_DATA_DIR.value)
        )
    page = rebuild_report(config, files, Path(_FIGURES.value) if _FIGURES.value else None)
    print(f"report: {page}")
    if _FIGURES.value:
        print(f"figures: {_FIGURES.value}")


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    cli.run(main)
