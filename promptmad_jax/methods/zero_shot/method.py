"""DAPO, MultiADS and plain CLIP as a `Method`."""

from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import NoReturn

import numpy as np
from jax.sharding import AbstractMesh, Mesh

from promptmad_jax.config import Config
from promptmad_jax.data.levels import Levels
from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.methods.method import EvaluationRequest
from promptmad_jax.methods.subject import Subject
from promptmad_jax.methods.zero_shot.abstract import AbstractZeroShot, abstract_training
from promptmad_jax.methods.zero_shot.assembly import assemble
from promptmad_jax.methods.zero_shot.images import load_target, on_other_data
from promptmad_jax.methods.zero_shot.trained import TrainedZeroShot, make_report
from promptmad_jax.methods.zero_shot.training import ZeroShotTraining
from promptmad_jax.reporting.compared_runs import ImageView, Key
from promptmad_jax.reporting.report import Report
from promptmad_jax.runs.base import Base
from promptmad_jax.runs.manifest import same_files
from promptmad_jax.runs.restore import restore_weights
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving.zero_shot_predictor import ZeroShotPredictor, parse_defects
from promptmad_jax.training.state import Weights


class ZeroShot:
    """See `Method`."""

    dtype_setting = "dapo.dtype"
    image_multiple = 1
    benchmark_cases = MappingProxyType(
        {
            "inference": ("inference", "inference_device", "states"),
            "training": ("training",),
        }
    )

    def __init__(self, config: Config):
        self.config = config

    def training(self, files: Workdir) -> ZeroShotTraining:
        del files
        return ZeroShotTraining(self.config)

    def evaluate(self, files: Workdir, request: EvaluationRequest) -> dict:
        if request.prompts > 1:
            raise UserError("--prompts: a zero-shot detector takes no prompt image; leave it out")
        config = on_other_data(self.config, request.dataset, request.data_dir, request.taxonomy)
        then = files.read_manifest() or {}
        moved = "data.taxonomy" in same_files(then, to_dict(config))
        other = request.dataset or (request.taxonomy and not moved)
        if other and request.output.path == files.path:
            raise UserError(
                "--dataset and --taxonomy go with --output, so that the run keeps its own figures"
            )
        target = load_target(config)
        return _restore(config, files).finish(target, files, request.output)

    def base(self, files: Workdir) -> NoReturn:
        _refuse("--base")

    def begin(self, files: Workdir, base: Base, levels: Levels | None) -> NoReturn:
        _refuse("--base")

    def enroll(
        self, files: Workdir, class_name: str, images: np.ndarray, filenames: tuple[str, ...]
    ) -> NoReturn:
        _refuse("enroll")

    def remove(self, files: Workdir, class_name: str) -> NoReturn:
        _refuse("enroll")

    def evaluate_weights(self, path: str, prompt_images: list[str], output: Workdir) -> NoReturn:
        _refuse("--weights")

    def predictor(self, files: Workdir | None, defects: str) -> ZeroShotPredictor:
        if not defects:
            raise UserError("a zero-shot detector looks for defects in words: give --defects")
        words = parse_defects(defects)
        if files is not None:
            cache = files.path / "text_cache"
            return _restore(self.config, files).predictor(words, cache)
        if self.config.dapo.trains:
            raise UserError("this configuration is trained: give its --workdir, not --config")
        detector = TrainedZeroShot(assemble(self.config), Weights(0, {}, {}))
        return detector.predictor(words, None)

    def weights_predictor(
        self, path: str, class_name: str, prompt_image: str, levels: Levels | None
    ) -> NoReturn:
        _refuse("--weights")

    def exportable(self, files: Workdir) -> NoReturn:
        raise UserError(
            "export is for detectors of classes with thresholds, and a zero-shot run has none"
        )

    def report_maps(self, files: Workdir, step: int) -> tuple[Report, Iterator[ClassMaps]]:
        report = make_report(self.config, files.path / "report")
        target = load_target(self.config)
        return report, _restore(self.config, files, step).class_maps(target)

    def shown_images(self, files: Workdir, keys: Sequence[Key]) -> list[ImageView]:
        _refuse("the comparison of single images")

    def run_weights(self, files: Workdir) -> NoReturn:
        _refuse("convert")

    def abstract_training(self, mesh: Mesh | AbstractMesh, platform: str) -> AbstractZeroShot:
        return abstract_training(self.config, mesh, platform)

    def benchmark_subject(self, weights: str, classes: int) -> Subject:
        from promptmad_jax.methods.zero_shot.random_detector import RandomZeroShot

        return RandomZeroShot(self.config, weights)


def _restore(config: Config, files: Workdir, step: int | None = None) -> TrainedZeroShot:
    """The detector of a run, at a step or at its newest checkpoint."""
    assembly = assemble(config)
    return TrainedZeroShot(assembly, restore_weights(assembly, files, step))


def _refuse(what: str) -> NoReturn:
    raise UserError(
        f"{what} is not available for zero-shot detectors; they have train, evaluate, report and "
        "predict --defects"
    )
