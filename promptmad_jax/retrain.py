"""Trains a new run on what a run was trained on and the images enrolled in it since.

    promptmad retrain --workdir=runs/mine --output=runs/mine_2
    promptmad retrain --workdir=runs/first --output=runs/trained --steps=1500

The configuration is that of the run. Its enrolled classes and images join the training images, and
the new run keeps them; the old run stays as it is. The same command continues an interrupted one.
"""

from absl import flags

from promptmad_jax.runtime import cli, distributed
from promptmad_jax.runtime.console import say
from promptmad_jax.runtime.paths import define_path

_WORKDIR = define_path("workdir", "the working directory of a trained run", required=True)
_OUTPUT = define_path("output", "folder of the new run", required=True)
_STEPS = flags.DEFINE_integer(
    "steps", None, "training steps; as many as the run had if not given", lower_bound=0
)
_DATA_DIR = define_path("data_dir", "folder of the prepared data set, if it moved")
_BACKBONE_WEIGHTS = define_path("backbone_weights", "the backbone's weights, if they moved")


def main(argv: list[str]) -> None:
    """Reads the flags, joins the other processes, then trains."""
    del argv
    distributed.initialize()
    say(f"training {_OUTPUT.value} on the images of {_WORKDIR.value}")
    from promptmad_jax.commands.retrain import retrain

    places = _DATA_DIR.value, _BACKBONE_WEIGHTS.value
    retrain(_WORKDIR.value, _OUTPUT.value, _STEPS.value, *places)


if __name__ == "__main__":
    cli.run(main)
