"""The evaluation of a trained run, or of a weight file."""

from promptmad_jax.config import Config, relocated
from promptmad_jax.methods.method import EvaluationRequest, open_method
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime import outputs
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.paths import absolute
from promptmad_jax.runtime.processes import claim_jointly


def evaluate_run(workdir: str, request: EvaluationRequest) -> dict:
    """Evaluates a run by its checkpoints; writes metrics.json and report/.

    Raises:
        UserError: there is no run, or an option is for another kind of detector.
    """
    files = Workdir(workdir)
    method = open_method(relocated(files.config(), "", request.weights))
    into_run = absolute(request.output.path) == absolute(files.path)
    kind, source = (outputs.kind_of(files.path), "") if into_run else (outputs.EVALUATE, workdir)
    with claim_jointly(str(request.output.path), kind, "--output", source):
        return method.evaluate(files, request)


def evaluate_weights(
    config: Config | None, path: str, prompt_images: list[str], output: str
) -> dict:
    """Evaluates a weight file on the configured data set; `prompt_images` are CLASS=PATH."""
    if config is None or not output:
        raise UserError("--weights goes with --config and --output, without --workdir")
    with claim_jointly(output, outputs.EVALUATE, "--output", path):
        return open_method(config).evaluate_weights(path, prompt_images, Workdir(output))
