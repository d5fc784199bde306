"""Prediction: scores files and folders of images."""

from promptmad_jax.config import Config
from promptmad_jax.methods.method import open_method
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving.folder import predict_files
from promptmad_jax.serving.prediction import Predictor

_OBJECT = "object"


def predict(predictor: Predictor, paths: list[str], class_name: str | None, output: str) -> None:
    """Writes scores.jsonl, maps and overlays of the images; prints how many were scored."""
    if class_name is None and predictor.class_names:
        raise UserError("give --class_name: a class of the run, or auto")
    name = class_name or _OBJECT
    predictor.check_class(name)  # before anything in `output` is touched
    count = predict_files(predictor, paths, name, output)
    print(f"{count} images scored: {output}/scores.jsonl")


def run_predictor(workdir: str, config: Config | None, defects: str) -> Predictor:
    """The predictor of a run, or of a configuration that trains nothing.

    Raises:
        UserError: both or neither were given, or an option is for another kind of detector.
    """
    if bool(workdir) == (config is not None):
        raise UserError(
            "give --workdir of a run; or --config, with --weights and --prompt_image, or with "
            "--defects where it trains nothing"
        )
    files = Workdir(workdir) if workdir else None
    return open_method(config or files.config()).predictor(files, defects)


def weights_predictor(
    config: Config | None, path: str, class_name: str | None, prompt_image: str
) -> Predictor:
    """The predictor of a weight file for one class."""
    if config is None or not prompt_image:
        raise UserError("--weights goes with --config and --prompt_image, without --workdir")
    if class_name is None:
        raise UserError("give --class_name: the class of the prompt image")
    return open_method(config).weights_predictor(path, class_name, prompt_image)
