"""Scores files and folders of images.

    python -m promptmad_jax.predict --workdir=DIR --class_name=NAME --output=OUT PATH...

Writes `scores.jsonl`, and for each image a float32 `.npy` map of its size and an overlay `.png`.
"""

from absl import flags

from promptmad_jax.runtime import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "the working directory of a trained run")
_CLASS_NAME = flags.DEFINE_string(
    "class_name", None, "a class of the run, or auto: the class whose prompt image is nearest"
)
_OUTPUT = flags.DEFINE_string("output", None, "where the results go")


def main(argv: list[str]) -> None:
    """Reads the flags, then predicts."""
    from promptmad_jax.run import load_predictor
    from promptmad_jax.serving.folder import predict_files

    predictor = load_predictor(_WORKDIR.value)
    count = predict_files(predictor, argv[1:], _CLASS_NAME.value, _OUTPUT.value)
    print(f"{count} images scored: {_OUTPUT.value}/scores.jsonl")


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir", "class_name", "output"])
    cli.run(main)
