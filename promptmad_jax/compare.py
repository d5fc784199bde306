"""Compares finished runs on one data set.

python -m promptmad_jax.compare DIR_A DIR_B ... --output=DIR

Differences are those to the first run. Needs each run's metrics.json and manifest.json; its
image_scores.csv for the comparison image by image; its checkpoint and the data set for pictures.
"""

from absl import flags

from promptmad_jax.runtime import cli

_OUTPUT = flags.DEFINE_string("output", None, "where index.html goes")
_PICTURES = flags.DEFINE_integer(
    "pictures", 8, "how many images to show as each run sees them; 0 runs no model", lower_bound=0
)


def main(argv: list[str]) -> None:
    """Reads the flags, then compares."""
    from promptmad_jax.commands.compare import compare_runs

    page = compare_runs(argv[1:], _OUTPUT.value, _shown_images, _PICTURES.value)
    print(f"comparison: {page}")


def _shown_images(directory, keys):
    """Imports the models only where their pictures are wanted."""
    from promptmad_jax.commands.compare import shown_images

    return shown_images(directory, keys)


if __name__ == "__main__":
    flags.mark_flag_as_required("output")
    cli.run(main)
