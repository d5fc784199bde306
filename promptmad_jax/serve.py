"""Serves a detector over HTTP, with a page to drop images on.

    promptmad serve --workdir=runs/mine
    promptmad serve --export=detector.zip --port=8000 --host=0.0.0.0 --token_file=token.txt
    curl --data-binary @part.png "http://127.0.0.1:8000/v1/predict?class_name=screw"

Answers with verdict, score, reason and regions; /docs lists the routes. Only this machine reaches
it unless --host says otherwise. SIGTERM lets begun answers end. It needs `pip install ".[serve]"`.
"""

from collections.abc import Sequence

from absl import flags

from promptmad_jax.runtime import cli
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.paths import define_path

_WORKDIR = define_path("workdir", "the working directory of a trained run")
_EXPORT = define_path("export", "an exported detector, folder or .zip, in place of a run")
_BACKBONE_WEIGHTS = define_path(
    "backbone_weights", "the backbone's or CLIP's weights (file, folder or hub id), if they moved"
)
_HOST = flags.DEFINE_string("host", "127.0.0.1", "address to listen on; 0.0.0.0 exposes it to all")
_PORT = flags.DEFINE_integer("port", 8000, "port to listen on", lower_bound=0, upper_bound=65535)
_TOKEN_FILE = define_path(
    "token_file",
    "file whose first line requests must bring as a bearer token; else PROMPTMAD_TOKEN",
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "most images scored together", lower_bound=1)
_WAIT_MS = flags.DEFINE_float(
    "wait_ms",
    3.0,
    "milliseconds that a first image waits for others, while several come at once",
    lower_bound=0,
)
_QUEUE = flags.DEFINE_integer("queue", 64, "images that may wait; others get 429", lower_bound=1)
_MAX_MEGABYTES = flags.DEFINE_float("max_megabytes", 64, "of an image file", lower_bound=0.001)
_MAX_MEGAPIXELS = flags.DEFINE_integer("max_megapixels", 100, "of an image", lower_bound=1)
_TIMEOUT = flags.DEFINE_float("timeout", 30, "seconds for an image to arrive", lower_bound=0.1)


def main(argv: Sequence[str]) -> None:
    """Reads the flags, then serves until told to stop."""
    if len(argv) > 1:
        raise UserError(f"unknown argument {argv[1]}: use the flags that --help shows")
    if bool(_WORKDIR.value) == bool(_EXPORT.value):
        raise UserError("give --workdir of a run, or --export of an exported detector")
    if _EXPORT.value and _BACKBONE_WEIGHTS.value:
        raise UserError("--backbone_weights goes with --workdir: an artifact holds its own")
    from promptmad_jax.commands.serve import Settings, serve

    settings = Settings(
        host=_HOST.value,
        port=_PORT.value,
        token_file=_TOKEN_FILE.value,
        batch_size=_BATCH_SIZE.value,
        wait_ms=_WAIT_MS.value,
        queue=_QUEUE.value,
        max_megabytes=_MAX_MEGABYTES.value,
        max_megapixels=_MAX_MEGAPIXELS.value,
        timeout=_TIMEOUT.value,
    )
    serve(_WORKDIR.value, _EXPORT.value, settings, _BACKBONE_WEIGHTS.value)


if __name__ == "__main__":
    cli.run(main)
