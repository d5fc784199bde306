"""Scores files and folders of images.

    promptmad predict --workdir=runs/mine --class_name=screw --output=out photos/ more/1.png
    promptmad predict --workdir=runs/zero_shot --defects="scratch,missing cap" --output=out photos/
    promptmad predict --config=onenip_mvtec.py --weights=onenip.safetensors \\
        --prompt_image=normal.png --class_name=screw --output=out photos/

Writes scores.jsonl (the score; for a trained run also verdict and defective regions) and, for each
image, a float32 .npy map of its size and an overlay .png. A zero-shot detector, from a run or from
a --config with nothing to train, adds the type of the defect and a picture of the types.
"""

from absl import flags

from promptmad_jax.runtime import cli
from promptmad_jax.runtime.config_file import define_config_flag
from promptmad_jax.runtime.errors import UserError

_OBJECT = "object"
_WORKDIR = flags.DEFINE_string("workdir", "", "the working directory of a trained run")
_CLASS_NAME = flags.DEFINE_string(
    "class_name",
    None,
    "a class of the run, or auto for the class whose prompt image is nearest; for a zero-shot "
    "detector, what the images show, in words (an object if not given)",
)
_DEFECTS = flags.DEFINE_string(
    "defects", "", "zero-shot detectors: the defects to look for, in words separated by commas"
)
_OUTPUT = flags.DEFINE_string("output", None, "folder for the results", required=True)
_CONFIG = define_config_flag("configuration of the model that --weights are for")
_WEIGHTS = flags.DEFINE_string("weights", "", "a file of weights in place of a trained run")
_PROMPT_IMAGE = flags.DEFINE_string("prompt_image", "", "with --weights: a normal image")


def main(argv: list[str]) -> None:
    """Reads the flags, then predicts."""
    from promptmad_jax.serving.folder import predict_files

    name = _CLASS_NAME.value or _OBJECT
    count = predict_files(_predictor(), argv[1:], name, _OUTPUT.value)
    print(f"{count} images scored: {_OUTPUT.value}/scores.jsonl")


def _predictor():
    from promptmad_jax.config import ZERO_SHOT, parse
    from promptmad_jax.methods.reconstruction.evaluation import load_predictor
    from promptmad_jax.methods.reconstruction.weight_file import load_file_predictor
    from promptmad_jax.runs.workdir import Workdir

    if _DEFECTS.value:
        return _zero_shot_predictor()
    given = parse(_CONFIG.value) if _CONFIG.value is not None else None
    if _WORKDIR.value and given is None:
        given = Workdir(_WORKDIR.value).config()
    if given is not None and given.model == ZERO_SHOT:
        raise UserError("a zero-shot detector looks for defects in words: give --defects")
    if _CLASS_NAME.value is None:
        raise UserError("give --class_name: a class of the run, or auto")
    if _WEIGHTS.value:
        if _WORKDIR.value or _CONFIG.value is None or not _PROMPT_IMAGE.value:
            raise UserError("--weights goes with --config and --prompt_image, without --workdir")
        return load_file_predictor(given, _WEIGHTS.value, _CLASS_NAME.value, _PROMPT_IMAGE.value)
    if not _WORKDIR.value or _CONFIG.value is not None or _PROMPT_IMAGE.value:
        raise UserError("give --workdir, or --weights with --config and --prompt_image")
    return load_predictor(_WORKDIR.value)


def _zero_shot_predictor():
    from promptmad_jax.config import ZERO_SHOT, parse
    from promptmad_jax.methods.zero_shot.evaluation import load_zero_shot_predictor
    from promptmad_jax.runs.workdir import Workdir
    from promptmad_jax.serving.zero_shot_predictor import parse_defects

    if bool(_WORKDIR.value) == (_CONFIG.value is not None) or _WEIGHTS.value:
        raise UserError("--defects goes with --workdir, or with a --config that trains nothing")
    files = Workdir(_WORKDIR.value) if _WORKDIR.value else None
    config = parse(_CONFIG.value) if files is None else files.config()
    if config.model != ZERO_SHOT:
        raise UserError("--defects is for zero-shot detectors, and this is none; leave it out")
    if _CLASS_NAME.value == "auto":
        raise UserError(
            "--class_name=auto chooses among the classes of a run; a zero-shot detector has none: "
            "say in words what the images show, or leave it out"
        )
    words = parse_defects(_DEFECTS.value)
    return load_zero_shot_predictor(config, files, words, _CLASS_NAME.value or _OBJECT)


if __name__ == "__main__":
    cli.run(main)
