"""The report as an experiment's configuration asks for it."""

from pathlib import Path

from promptmad_jax.evaluation.inference import MapMaker
from promptmad_jax.evaluation.report import Report
from promptmad_jax.evaluation.strip import step_source
from promptmad_jax.experiment import Experiment
from promptmad_jax.training.state import TrainState


def make_report(
    experiment: Experiment, maker: MapMaker, state: TrainState, directory: Path
) -> Report:
    """An empty report, which will show the diffusion steps of this state where it has any."""
    settings = experiment.config.eval
    return Report(
        directory,
        image_pool=settings.image_pool,
        aupro_limit=settings.aupro_limit,
        steps=step_source(maker, state.params, state.stats, experiment.class_names),
    )
