"""Scores files and folders of images.

    python -m promptmad_jax.predict --workdir=DIR --class_name=NAME --output=OUT PATH...
    python -m promptmad_jax.predict --config=configs/X.py --weights=FILE --prompt_image=NORMAL.png \
        --class_name=NAME --output=OUT PATH...

Writes `scores.jsonl` (score; with a trained run, verdict and defective regions too), and for each
image a float32 `.npy` map of its size and an overlay `.png`.
"""

from absl import flags
from ml_collections import config_flags

from promptmad_jax.runtime import cli
from promptmad_jax.runtime.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", "", "the working directory of a trained run")
_CLASS_NAME = flags.DEFINE_string(
    "class_name", None, "a class of the run, or auto: the class whose prompt image is nearest"
)
_OUTPUT = flags.DEFINE_string("output", None, "where the results go")
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configs/X.py[:arguments], of the model that --weights are for"
)
_WEIGHTS = flags.DEFINE_string("weights", "", "a weight file in place of a trained run")
_PROMPT_IMAGE = flags.DEFINE_string("prompt_image", "", "with --weights: a normal image")


def main(argv: list[str]) -> None:
    """Reads the flags, then predicts."""
    from promptmad_jax.serving.folder import predict_files

    count = predict_files(_predictor(), argv[1:], _CLASS_NAME.value, _OUTPUT.value)
    print(f"{count} images scored: {_OUTPUT.value}/scores.jsonl")


def _predictor():
    from promptmad_jax.config import parse
    from promptmad_jax.evaluation_run import load_predictor
    from promptmad_jax.foreign import load_file_predictor

    if _WEIGHTS.value:
        if _WORKDIR.value or _CONFIG.value is None or not _PROMPT_IMAGE.value:
            raise UserError("--weights goes with --config and --prompt_image, without --workdir")
        config = parse(_CONFIG.value)
        return load_file_predictor(config, _WEIGHTS.value, _CLASS_NAME.value, _PROMPT_IMAGE.value)
    if not _WORKDIR.value or _CONFIG.value is not None or _PROMPT_IMAGE.value:
        raise UserError("give --workdir, or --weights with --config and --prompt_image")
    return load_predictor(_WORKDIR.value)


if __name__ == "__main__":
    flags.mark_flags_as_required(["class_name", "output"])
    cli.run(main)
