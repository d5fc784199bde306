"""Builds a data set: `python -m promptmad_jax.prepare --dataset=NAME --source=PATH --data_dir=DIR`.

Every file is decoded first; what is wrong is named on the terminal and in `report.json` beside the
shards, and left out.
"""

from collections.abc import Sequence

from absl import flags, logging

from promptmad_jax.commands.prepare import FOLDER_DATASETS, SYNTHETIC, prepare
from promptmad_jax.runtime import cli
from promptmad_jax.runtime.errors import UserError

_DATASET = flags.DEFINE_string("dataset", None, f"{', '.join(FOLDER_DATASETS)} or {SYNTHETIC}.")
_SOURCE = flags.DEFINE_string("source", "", "Folder, archive or list file to read.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder to write to.")
_IMAGE_DIR = flags.DEFINE_string("image_dir", "", "Where a list's images are.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Build again although the source is the same.")
_DRAWN = {
    "seed": flags.DEFINE_integer("seed", None, f"{SYNTHETIC}: seed of all pictures."),
    "image_size": flags.DEFINE_integer("image_size", None, f"{SYNTHETIC}: side in pixels."),
    "train_per_class": flags.DEFINE_integer(
        "train_per_class", None, f"{SYNTHETIC}: training pictures of a class."
    ),
    "test_good_per_class": flags.DEFINE_integer(
        "test_good_per_class", None, f"{SYNTHETIC}: normal test pictures of a class."
    ),
    "test_per_defect": flags.DEFINE_integer(
        "test_per_defect", None, f"{SYNTHETIC}: test pictures of a defect type."
    ),
    "class_names": flags.DEFINE_list("class_names", None, f"{SYNTHETIC}: the classes to draw."),
}


def main(argv: Sequence[str]) -> None:
    """Entry point of `python -m promptmad_jax.prepare`."""
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        raise UserError(f"unknown argument {argv[1]}: use --dataset, --source and --data_dir")
    if not _DATASET.value or not _DATA_DIR.value:
        raise UserError("name the data set with --dataset=NAME and the folder with --data_dir=DIR")
    prepare(
        dataset=_DATASET.value,
        data_dir=_DATA_DIR.value,
        source=_SOURCE.value,
        image_dir=_IMAGE_DIR.value,
        overwrite=_OVERWRITE.value,
        arguments={name: flag.value for name, flag in _DRAWN.items() if flag.value is not None},
    )


if __name__ == "__main__":
    cli.run(main)
