"""Compares finished runs on one data set, side by side on one page.

    promptmad compare runs/first runs/second runs/third --output=comparison
    promptmad compare runs/study/*/* --group_seeds --json=docs/results --output=comparison

Differences are to the first run. Needs each run's metrics.json and manifest.json; also its
image_scores.csv to compare image by image, and its checkpoint and data set for pictures.
"""

import os

from absl import flags

from promptmad_jax.runtime import cli
from promptmad_jax.runtime.paths import define_path

_OUTPUT = define_path("output", "folder for index.html", required=True)
_DATA_DIR = define_path("data_dir", "folder of the prepared data set, if it has moved")
_BACKBONE_WEIGHTS = define_path(
    "backbone_weights", "the backbone's or CLIP's weights (file, folder or hub id), if all moved"
)
_PICTURES = flags.DEFINE_integer(
    "pictures", 8, "images to show with the map of each run; 0 runs no model", lower_bound=0
)
_GROUP_SEEDS = flags.DEFINE_bool(
    "group_seeds", False, "show runs that differ only in their seeds as one, with mean and spread"
)
_JSON = define_path(
    "json", "folder for a JSON file per column: figures with their spread, seeds, settings"
)


def main(argv: list[str]) -> None:
    """Reads the flags, then compares."""
    from promptmad_jax.commands.compare import compare_runs

    page = compare_runs(
        list(map(os.path.expanduser, argv[1:])),
        _OUTPUT.value,
        _PICTURES.value,
        _GROUP_SEEDS.value,
        _JSON.value,
        (_DATA_DIR.value, _BACKBONE_WEIGHTS.value),
    )
    print(f"comparison: {page}")


if __name__ == "__main__":
    cli.run(main)
