"""Gives a run a new class, or more normal images of an old one, in seconds and without training.

    promptmad enroll --workdir=runs/mine --class_name=gasket photos/gasket/
    promptmad enroll --workdir=runs/mine --class_name=screw --from_reviewed=out
    promptmad enroll --workdir=runs/mine --class_name=gasket --remove
    promptmad enroll --base=efficientnetv2_b0 --workdir=runs/first --class_name=bracket good_parts/

The images give the class its memory of normal patches, prompt, thresholds and words where the model
reads any. Other classes stay as they are to the bit. With --base the run itself begins here: with
what was learned in another run, or by the project on drawn pictures.
"""

from collections.abc import Sequence

from absl import flags

from promptmad_jax.runtime import cli
from promptmad_jax.runtime.console import say
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.paths import define_path

_WORKDIR = define_path("workdir", "the working directory of a run", required=True)
_CLASS_NAME = flags.DEFINE_string(
    "class_name", None, "a new class or one of the run", required=True
)
_FROM_REVIEWED = define_path(
    "from_reviewed",
    "results of predict with a reviewed.csv (file, good): the images that it calls good",
)
_REMOVE = flags.DEFINE_bool("remove", False, "take the enrolled images of the class out again")
_BASE = flags.DEFINE_string(
    "base",
    "",
    "what a new run begins with: efficientnetv2_b0, for which learned parts ship; another "
    "backbone, which has the memory alone; or the folder of a run",
)
_BIT_DEPTH = flags.DEFINE_integer(
    "bit_depth",
    None,
    "with --base: bits that a value takes in images of more than 8 bits",
    lower_bound=1,
    upper_bound=32,
)
_BACKBONE_WEIGHTS = define_path(
    "backbone_weights", "the backbone's weights: if they moved, or with --base those to take"
)


def main(argv: Sequence[str]) -> None:
    """Reads the flags, then enrols."""
    say(f"loading {_WORKDIR.value}")
    from promptmad_jax.commands.begin import begin
    from promptmad_jax.commands.enroll import enroll, remove, reviewed_good
    from promptmad_jax.commands.predictors import reading_of

    paths = list(argv[1:])
    if _REMOVE.value:
        if paths or _FROM_REVIEWED.value or _BASE.value:
            raise UserError("--remove takes no images: it takes out all that were enrolled")
        remove(_WORKDIR.value, _CLASS_NAME.value)
        return
    if _FROM_REVIEWED.value:
        paths += reviewed_good(_FROM_REVIEWED.value, _CLASS_NAME.value)
    weights = _BACKBONE_WEIGHTS.value
    if _BIT_DEPTH.value and not _BASE.value:
        raise UserError("--bit_depth goes with --base: a run reads images as it did before")
    if _BASE.value:
        begin(_WORKDIR.value, _BASE.value, weights, _BIT_DEPTH.value)
    reading = reading_of(_WORKDIR.value, None, 500)
    enroll(_WORKDIR.value, _CLASS_NAME.value, paths, reading, weights)


if __name__ == "__main__":
    cli.run(main)
