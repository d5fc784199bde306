"""Gives a trained run a new class, or more normal images of an old one, in seconds.

    promptmad enroll --workdir=runs/mine --class_name=gasket photos/gasket/
    promptmad enroll --workdir=runs/mine --class_name=screw --from_reviewed=out
    promptmad enroll --workdir=runs/mine --class_name=gasket --remove

Nothing is trained: the images give the class its memory of normal patches, prompt, thresholds and
words where the model reads any. Other classes stay as they are to the bit.
"""

from collections.abc import Sequence

from absl import flags

from promptmad_jax.runtime import cli
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.paths import define_path

_WORKDIR = define_path("workdir", "the working directory of a trained run", required=True)
_CLASS_NAME = flags.DEFINE_string(
    "class_name", None, "a new class or one of the run", required=True
)
_FROM_REVIEWED = define_path(
    "from_reviewed",
    "results of predict with a reviewed.csv (file, good): the images that it calls good",
)
_REMOVE = flags.DEFINE_bool("remove", False, "take the enrolled images of the class out again")
_BACKBONE_WEIGHTS = define_path("backbone_weights", "the backbone's weights, if they moved")


def main(argv: Sequence[str]) -> None:
    """Reads the flags, then enrols."""
    from promptmad_jax.commands.enroll import enroll, remove, reviewed_good
    from promptmad_jax.commands.predictors import reading_of

    paths = list(argv[1:])
    if _REMOVE.value:
        if paths or _FROM_REVIEWED.value:
            raise UserError("--remove takes no images: it takes out all that were enrolled")
        remove(_WORKDIR.value, _CLASS_NAME.value)
        return
    if _FROM_REVIEWED.value:
        paths += reviewed_good(_FROM_REVIEWED.value, _CLASS_NAME.value)
    reading = reading_of(_WORKDIR.value, None, 500)
    enroll(_WORKDIR.value, _CLASS_NAME.value, paths, reading, _BACKBONE_WEIGHTS.value)


if __name__ == "__main__":
    cli.run(main)
