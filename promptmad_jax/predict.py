"""Scores files and folders of images.

    promptmad predict --workdir=runs/mine --class_name=screw --output=out photos/ more/1.png
    promptmad predict --workdir=runs/mine --class_name=screw --output=out --watch camera/
    promptmad predict --workdir=runs/zero_shot --defects="scratch,missing cap" --output=out photos/
    promptmad predict --export=detector.zip --class_name=screw --output=out photos/
    promptmad predict --config=onenip_mvtec.py --weights=onenip.safetensors \\
        --prompt_image=normal.png --class_name=screw --output=out photos/

Writes scores.jsonl and scores.csv (the score; for a trained run also verdict and regions) and, for
each image, a float32 .npy map of its size and an overlay .png. A zero-shot detector, from a run or
from a --config with nothing to train, adds the type of the defect and a picture of the types.
"""

import pathlib

from absl import flags

from promptmad_jax.runtime import cli
from promptmad_jax.runtime.config_file import define_config_flag
from promptmad_jax.runtime.console import say
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.paths import define_path

_WORKDIR = define_path("workdir", "the working directory of a trained run")
_CLASS_NAME = flags.DEFINE_string(
    "class_name",
    None,
    "a class of the run, or auto for the class whose prompt image is nearest; for a zero-shot "
    "detector, what the images show, in words (an object if not given)",
)
_DEFECTS = flags.DEFINE_string(
    "defects", "", "zero-shot detectors: the defects to look for, in words separated by commas"
)
_OUTPUT = define_path("output", "folder for the results", required=True)
_EXPORT = define_path("export", "an exported detector, folder or .zip, in place of a run")
_CONFIG = define_config_flag("configuration of the model that --weights are for")
_WEIGHTS = define_path("weights", "a file of weights in place of a trained run")
_BACKBONE_WEIGHTS = define_path(
    "backbone_weights", "the backbone's or CLIP's weights (file, folder or hub id), if they moved"
)
_PROMPT_IMAGE = define_path("prompt_image", "with --weights: a normal image")
_BIT_DEPTH = flags.DEFINE_integer(
    "bit_depth",
    None,
    "bits that a value takes in images of more than 8 bits; as in the training images if not given",
    lower_bound=1,
    upper_bound=32,
)
_MAX_MEGAPIXELS = flags.DEFINE_integer(
    "max_megapixels", 500, "larger images are left out", lower_bound=1
)
_THRESHOLD = flags.DEFINE_multi_string(
    "threshold", [], "CLASS=VALUE, an image threshold in place of the run's; repeat the flag"
)
_IGNORE = define_path(
    "ignore", "mask, painted where pixels do not count, stretched over every image"
)
_MIN_REGION = flags.DEFINE_integer(
    "min_region", 0, "smallest defective region, in pixels of the image", lower_bound=0
)
_OVERLAY = flags.DEFINE_enum(
    "overlay", "marked", ["marked", "plain"], "overlays with or without the verdict written in"
)
_COPIES = define_path(
    "copy_defective_to", "folder for copies of the images that are defective or unknown"
)
_WATCH = flags.DEFINE_bool(
    "watch", False, "score images as they arrive in the given folders, until Ctrl-C"
)


def main(argv: list[str]) -> None:
    """Reads the flags, then predicts."""
    say(f"loading {_EXPORT.value or _WORKDIR.value or _WEIGHTS.value or 'the detector'}")
    from promptmad_jax.commands.predict import predict
    from promptmad_jax.serving.results import Options

    reading, make = _exported() if _EXPORT.value else _trained()
    options = Options(
        reading,
        _OVERLAY.value == "marked",
        _MIN_REGION.value,
        pathlib.Path(_COPIES.value) if _COPIES.value else None,
    )
    predict(_adjusted(make), argv[1:], _CLASS_NAME.value, _OUTPUT.value, options, _WATCH.value)


def _adjusted(make):
    """Applies the settings that are the user's own."""
    from promptmad_jax.data.preprocess import decode_mask

    thresholds, ignored = _THRESHOLD.value, decode_mask(_IGNORE.value) if _IGNORE.value else None
    if not thresholds and ignored is None:
        return make
    return lambda: make().adjusted(thresholds, ignored)


def _exported():
    """Reading and predictor of an artifact, without the code that trains."""
    from promptmad_jax.data.image_files import Reading
    from promptmad_jax.data.levels import Levels
    from promptmad_jax.serving.artifact import Artifact

    others = (_WORKDIR, _CONFIG, _WEIGHTS, _DEFECTS, _BACKBONE_WEIGHTS, _PROMPT_IMAGE)
    if any(flag.value for flag in others):
        raise UserError("--export holds everything: leave out --workdir, --config and --weights")
    artifact, bits = Artifact(_EXPORT.value), _BIT_DEPTH.value
    levels = Levels.of_bits(bits) if bits else artifact.levels()
    return Reading(levels, _MAX_MEGAPIXELS.value), artifact.predictor


def _trained():
    """Reading and predictor of a run, of a weight file, or of a configuration alone."""
    from promptmad_jax.commands.predictors import reading_of, run_predictor, weights_predictor
    from promptmad_jax.config import parse, relocated

    config = None if _CONFIG.value is None else parse(_CONFIG.value)
    name = _CLASS_NAME.value
    reading = reading_of(_WORKDIR.value, _BIT_DEPTH.value, _MAX_MEGAPIXELS.value)
    if _WEIGHTS.value and not _WORKDIR.value and not _DEFECTS.value:
        config = config and relocated(config, "", _BACKBONE_WEIGHTS.value)
        make = lambda: weights_predictor(
            config, _WEIGHTS.value, name, _PROMPT_IMAGE.value, reading.levels
        )
    elif _WEIGHTS.value or _PROMPT_IMAGE.value:
        raise UserError("--weights and --prompt_image go with --config, without --workdir")
    else:
        make = run_predictor(_WORKDIR.value, config, _DEFECTS.value, _BACKBONE_WEIGHTS.value)
    return reading, make


if __name__ == "__main__":
    cli.run(main)
