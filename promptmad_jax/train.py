"""Trains a model: `python -m promptmad_jax.train --config=configs/X.py --workdir=DIR`.

The same command resumes an interrupted run from its last checkpoint.
"""

from absl import flags
from ml_collections import config_flags

from promptmad_jax.runtime import cli

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configs/X.py[:arguments]", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "where the run keeps everything it writes")


def main(argv: list[str]) -> None:
    """Reads the flags, then trains."""
    from promptmad_jax.config import parse
    from promptmad_jax.run import run_training

    del argv
    run_training(parse(_CONFIG.value), _WORKDIR.value)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    cli.run(main)
