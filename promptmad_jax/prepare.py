"""Builds a data set from an archive, a folder or a list of files.

    promptmad prepare --dataset=anomaly_folder --source=FOLDER --data_dir=data
    promptmad prepare --dataset=normal_folder --source=GOOD_PARTS --data_dir=data
    promptmad prepare --dataset=mvtec_ad --source=mvtec_anomaly_detection.tar.xz --data_dir=data
    promptmad prepare --dataset=synthetic_mvtec --data_dir=data --examples=examples

Every file is decoded first; a file with a fault is left out, and named on the terminal and in
report.json beside the shards.
"""

from collections.abc import Sequence

from absl import flags, logging

from promptmad_jax.commands.examples import COUNT, check_examples, write_examples
from promptmad_jax.commands.prepare import FOLDER_DATASETS, SYNTHETIC, prepare
from promptmad_jax.runtime import cli
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.paths import define_path

_DATASET = flags.DEFINE_string(
    "dataset", None, f"{', '.join(FOLDER_DATASETS)} or {SYNTHETIC}", required=True
)
_SOURCE = define_path("source", "folder, archive or list file to read")
_DATA_DIR = define_path("data_dir", "folder to write to", required=True)
_IMAGE_DIR = define_path("image_dir", "folder of the images in a list")
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "build again, and replace what another source gave"
)
_EXAMPLES = flags.DEFINE_string(
    "examples", "", f"{SYNTHETIC}: folder for {COUNT} test pictures, to try predict on"
)
_READING = {
    "bit_depth": flags.DEFINE_integer(
        "bit_depth",
        None,
        "bits that a value takes in images of more than 8 bits, 12 for a 12-bit camera; found from"
        " the training images if not given",
        lower_bound=1,
        upper_bound=32,
    ),
    "max_megapixels": flags.DEFINE_integer(
        "max_megapixels", None, "larger images are left out; 500 if not given", lower_bound=1
    ),
}
_DRAWN = {
    "seed": flags.DEFINE_integer("seed", None, f"{SYNTHETIC}: seed of all images"),
    "image_size": flags.DEFINE_integer("image_size", None, f"{SYNTHETIC}: side in pixels"),
    "train_per_class": flags.DEFINE_integer(
        "train_per_class", None, f"{SYNTHETIC}: training images per class"
    ),
    "test_good_per_class": flags.DEFINE_integer(
        "test_good_per_class", None, f"{SYNTHETIC}: normal test images per class"
    ),
    "test_per_defect": flags.DEFINE_integer(
        "test_per_defect", None, f"{SYNTHETIC}: test images per defect type"
    ),
    "class_names": flags.DEFINE_list("class_names", None, f"{SYNTHETIC}: the classes to draw"),
}


def main(argv: Sequence[str]) -> None:
    """Reads the flags, then builds the data set."""
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        raise UserError(f"unknown argument {argv[1]}: use --dataset, --source and --data_dir")
    if _EXAMPLES.value:
        check_examples(_DATASET.value)
    prepare(
        dataset=_DATASET.value,
        data_dir=_DATA_DIR.value,
        source=_SOURCE.value,
        image_dir=_IMAGE_DIR.value,
        overwrite=_OVERWRITE.value,
        arguments=_given(_DRAWN),
        **_given(_READING),
    )
    if _EXAMPLES.value:
        write_examples(_DATA_DIR.value, _EXAMPLES.value)


def _given(options: dict[str, flags.FlagHolder]) -> dict[str, object]:
    return {name: flag.value for name, flag in options.items() if flag.value is not None}


if __name__ == "__main__":
    cli.run(main)
