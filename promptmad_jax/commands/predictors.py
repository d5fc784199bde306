"""Predictors of a run, of a weight file and of a configuration that trains nothing."""

from collections.abc import Callable

from promptmad_jax.config import Config, relocated
from promptmad_jax.data.image_files import Reading
from promptmad_jax.data.levels import Levels
from promptmad_jax.methods.method import open_method
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving.prediction import Predictor


def reading_of(workdir: str, bit_depth: int | None, max_megapixels: float) -> Reading:
    """Options for reading image files: those of the run's images, unless others are given."""
    if bit_depth:
        return Reading(Levels.of_bits(bit_depth), max_megapixels)
    return Reading(Workdir(workdir).levels() if workdir else None, max_megapixels)


def run_predictor(
    workdir: str, config: Config | None, defects: str, weights: str = ""
) -> Callable[[], Predictor]:
    """Opens a run, or a configuration that trains nothing; the result loads its predictor.

    Raises:
        UserError: both or neither were given, or an option is for another kind of detector.
    """
    if bool(workdir) == (config is not None):
        raise UserError(
            "give --workdir of a run; or --config, with --weights and --prompt_image, or with "
            "--defects where it trains nothing"
        )
    files = Workdir(workdir) if workdir else None
    config = relocated(config or files.config(), "", weights)
    method = open_method(config)
    return lambda: method.predictor(files, defects)


def weights_predictor(
    config: Config | None,
    path: str,
    class_name: str | None,
    prompt_image: str,
    levels: Levels | None = None,
) -> Predictor:
    """The predictor of a weight file for one class."""
    if config is None or not prompt_image:
        raise UserError("--weights goes with --config and --prompt_image, without --workdir")
    if class_name is None:
        raise UserError("give --class_name: the class of the prompt image")
    return open_method(config).weights_predictor(path, class_name, prompt_image, levels)
