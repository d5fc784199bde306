"""Compares finished runs on one data set, side by side on one page.

    promptmad compare runs/first runs/second runs/third --output=comparison
    promptmad compare runs/study/*/* --group_seeds --json=docs/results --output=comparison

Differences are to the first run. Needs each run's metrics.json and manifest.json; also its
image_scores.csv to compare image by image, and its checkpoint and data set for pictures.
"""

from absl import flags

from promptmad_jax.runtime import cli

_OUTPUT = flags.DEFINE_string("output", None, "folder for index.html", required=True)
_PICTURES = flags.DEFINE_integer(
    "pictures", 8, "images to show with the map of each run; 0 runs no model", lower_bound=0
)
_GROUP_SEEDS = flags.DEFINE_bool(
    "group_seeds", False, "show runs that differ only in their seeds as one, with mean and spread"
)
_JSON = flags.DEFINE_string(
    "json", "", "folder for a JSON file per column: figures with their spread, seeds, settings"
)


def main(argv: list[str]) -> None:
    """Reads the flags, then compares."""
    from promptmad_jax.commands.compare import compare_runs

    page = compare_runs(argv[1:], _OUTPUT.value, _PICTURES.value, _GROUP_SEEDS.value, _JSON.value)
    print(f"comparison: {page}")


if __name__ == "__main__":
    cli.run(main)
