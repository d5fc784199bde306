"""Says whether the thresholds of a run still hold, from its recent predictions.

    promptmad drift --workdir=runs/mine out/monday out/tuesday
    promptmad drift --workdir=runs/mine --output=drift out/*

Compares what was called normal in folders of `promptmad predict` with the normal images that set
the thresholds, by a two-sample test per class. --output adds a page with charts.
"""

from collections.abc import Sequence

from promptmad_jax.runtime import cli
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.paths import define_path

_WORKDIR = define_path("workdir", "the working directory of a run", required=True)
_OUTPUT = define_path("output", "folder for a page with charts")


def main(argv: Sequence[str]) -> None:
    """Reads the flags, then compares."""
    from promptmad_jax.commands.drift import drift

    if len(argv) < 2:
        raise UserError("name one or more folders that `promptmad predict` wrote")
    drift(_WORKDIR.value, list(argv[1:]), _OUTPUT.value)


if __name__ == "__main__":
    cli.run(main)
