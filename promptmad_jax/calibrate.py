"""Sets the thresholds of a trained run anew, in seconds, from the scores that it keeps.

    promptmad calibrate --workdir=runs/mine
    promptmad calibrate --workdir=runs/mine --image_fpr=0.01 --pixel_fpr=0.001
    promptmad calibrate --workdir=runs/mine --threshold=screw=12.5 --threshold=nut=9

Without options, shows the thresholds and the false-alarm rates that they stand for. Otherwise
writes calibration.json, in which every change stays recorded; nothing is trained or evaluated.
"""

from collections.abc import Sequence

from absl import flags

from promptmad_jax.runtime import cli
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.paths import define_path

_WORKDIR = define_path("workdir", "the working directory of a run", required=True)
_RATES = {
    "image": flags.DEFINE_float("image_fpr", None, "share of new normal images called defective"),
    "pixel": flags.DEFINE_float("pixel_fpr", None, "share of normal pixels above the threshold"),
    "unknown": flags.DEFINE_float("unknown_fpr", None, "share of normal images called unknown"),
}
_THRESHOLD = flags.DEFINE_multi_string(
    "threshold", [], "CLASS=VALUE: the image threshold of a class, set by hand"
)


def main(argv: Sequence[str]) -> None:
    """Reads the flags, then sets and prints the thresholds."""
    from promptmad_jax.commands.calibrate import calibrate

    if len(argv) > 1:
        raise UserError(f"unknown argument {argv[1]}: use the flags that --help shows")
    rates = {name: flag.value for name, flag in _RATES.items() if flag.value is not None}
    calibrate(_WORKDIR.value, rates, _THRESHOLD.value)


if __name__ == "__main__":
    cli.run(main)
