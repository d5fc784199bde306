"""A zero-shot detector with the weights of one state: evaluated, reported, served."""

from collections.abc import Callable, Iterator

from etils import epath

from promptmad_jax.config import Config
from promptmad_jax.data.defect_types.images import DefectTypeImages
from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.evaluate import evaluate_maps
from promptmad_jax.evaluation.zero_shot_evaluate import TypeFigures, zero_shot_class_maps
from promptmad_jax.methods.results import write_results
from promptmad_jax.methods.zero_shot.assembly import ZeroShotAssembly
from promptmad_jax.methods.zero_shot.images import target_facts
from promptmad_jax.reporting.report import Report
from promptmad_jax.reporting.tables import format_types
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.processes import is_writer, this_run
from promptmad_jax.serving.zero_shot_predictor import ZeroShotPredictor
from promptmad_jax.training.state import Weights


class TrainedZeroShot:
    """An assembly with the weights of one state."""

    def __init__(self, assembly: ZeroShotAssembly, weights: Weights):
        self.assembly, self.weights, self.config = assembly, weights, assembly.config

    def class_maps(
        self, target: DefectTypeImages, figures: TypeFigures | None = None
    ) -> Iterator[ClassMaps]:
        """Yields the maps of each class, among all defect types of the target."""
        assembly, params = self.assembly, self.weights.params
        states = assembly.maker.states(params, assembly.tokens(target.taxonomy.words))
        return zero_shot_class_maps(assembly.maker, params, states, target, figures)

    def evaluate(
        self, target: DefectTypeImages, also: Callable[[ClassMaps], None] = lambda _: None
    ) -> dict:
        """Returns the metrics.json object: that of any detector, and `multi_type`.

        Args:
            also: called with the maps of each class.
        """
        figures = TypeFigures(this_run())
        result = evaluate_maps(self.class_maps(target, figures), self.config.eval, {}, "", also)
        result["protocol"] |= _choices(self.config, int(self.weights.step))
        words = dict(zip(target.taxonomy.names, target.taxonomy.words, strict=True))
        return result | {"multi_type": figures.result(words)}

    def finish(self, target: DefectTypeImages, files: Workdir, output: Workdir) -> dict:
        """Evaluates with everything: writes metrics.json and the report, prints the table."""
        report = make_report(self.config, output.path / "report")
        result = self.evaluate(target, report.add)
        if is_writer():
            entries = {"config": to_dict(self.config)} | target_facts(target)
            write_results(result, report, files, output, entries)
            print(format_types(result["multi_type"]))
        return result

    def predictor(self, words: tuple[str, ...], cache: epath.Path | None) -> ZeroShotPredictor:
        """Scores images for defects in words; text states are cached below `cache`."""
        assembly = self.assembly
        return ZeroShotPredictor(assembly.maker, self.weights.params, assembly.tokens, words, cache)


def make_report(config: Config, directory: epath.Path) -> Report:
    """An empty report."""
    settings = config.eval
    return Report(directory, image_pool=settings.image_pool, aupro_limit=settings.aupro_limit)


def _choices(config: Config, step: int) -> dict:
    """The entries of the protocol that concern the model."""
    dapo = config.dapo
    maps = {"states": "the sum of the defect types", "pair": "normal against the mean defect"}
    scores = {
        "pair": "normal against the mean defect, for the class token",
        "map_and_states": "the map's maximum + 1 - normal, for the class token",
    }
    return {
        "map": f"{maps[dapo.map_from]}, among all types of the data set, mean over the taps",
        "image_score": scores[dapo.score_from],
        "taxonomy": config.data.taxonomy or "shipped",
        "trained_on": f"the test split of {config.source.dataset}"
        if config.source.dataset
        else "nothing",
        "step": step,
        "checkpoint": "the newest",
    }
