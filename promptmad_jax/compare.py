"""Compares finished runs on one data set.

python -m promptmad_jax.compare DIR_A DIR_B ... --output=DIR

Differences are those to the first run. Needs each run's metrics.json and manifest.json, and its
image_scores.csv for the comparison image by image.
"""

from absl import flags

from promptmad_jax.runtime import cli

_OUTPUT = flags.DEFINE_string("output", None, "where index.html goes")


def main(argv: list[str]) -> None:
    """Reads the flags, then compares."""
    from promptmad_jax.reporting.compare import compare_runs

    print(f"comparison: {compare_runs(argv[1:], _OUTPUT.value)}")


if __name__ == "__main__":
    flags.mark_flag_as_required("output")
    cli.run(main)
