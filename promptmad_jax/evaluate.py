"""Evaluates a trained run: `python -m promptmad_jax.evaluate --workdir=DIR [--output=DIR2]`."""

import dataclasses

from absl import flags

from promptmad_jax.runtime import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "the working directory of a trained run")
_OUTPUT = flags.DEFINE_string(
    "output", "", "where metrics.json and report/ go; the workdir if empty"
)
_DATA_DIR = flags.DEFINE_string("data_dir", "", "where the prepared data set lies, if it has moved")


def main(argv: list[str]) -> None:
    """Reads the flags, then evaluates."""
    from promptmad_jax.run import run_evaluation
    from promptmad_jax.workdir import Workdir

    del argv
    files = Workdir(_WORKDIR.value)
    config = files.config()
    if _DATA_DIR.value:
        config = dataclasses.replace(
            config, data=dataclasses.replace(config.data, data_dir=_DATA_DIR.value)
        )
    run_evaluation(config, files, Workdir(_OUTPUT.value or _WORKDIR.value))


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    cli.run(main)
