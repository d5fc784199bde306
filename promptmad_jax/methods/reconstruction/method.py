"""PromptMAD, OneNIP and UniAD as a `Method`."""

import dataclasses
from collections.abc import Iterator, Sequence
from types import MappingProxyType

import numpy as np
from jax.sharding import AbstractMesh, Mesh

from promptmad_jax.config import Config, relocated
from promptmad_jax.data.image_set import ImageSet, of_classes
from promptmad_jax.data.levels import Levels
from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.constants import Calibration
from promptmad_jax.evaluation.metrics.metrics import image_scores
from promptmad_jax.methods.method import EvaluationRequest
from promptmad_jax.methods.reconstruction.abstract import AbstractReconstruction, abstract_training
from promptmad_jax.methods.reconstruction.assembly import reassemble
from promptmad_jax.methods.reconstruction.beginning import base_of, begin
from promptmad_jax.methods.reconstruction.enrolling import enroll, enrolled_images, remove
from promptmad_jax.methods.reconstruction.evaluation import finish
from promptmad_jax.methods.reconstruction.exporting import ExportedReconstruction
from promptmad_jax.methods.reconstruction.splits import Splits, load_splits, load_test_images
from promptmad_jax.methods.reconstruction.trained import TrainedDetector
from promptmad_jax.methods.reconstruction.training import ReconstructionTraining
from promptmad_jax.methods.subject import Subject
from promptmad_jax.models.backbone.backbone import build_backbone
from promptmad_jax.models.reconstruction.weights.model_file import Canonical
from promptmad_jax.reporting.compared_runs import ImageView, Key
from promptmad_jax.reporting.explanations import highest_window
from promptmad_jax.reporting.marking import draw_verdict
from promptmad_jax.reporting.report import Report
from promptmad_jax.runs.base import Base
from promptmad_jax.runs.restore import restore_weights
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving.predictor import ClassPredictor


class Reconstruction:
    """See `Method`."""

    dtype_setting = "backbone.dtype"
    benchmark_cases = MappingProxyType(
        {
            "inference": ("inference", "inference_device", "stages", "bank"),
            "training": ("training",),
            "synthesis": ("synthesis",),
            "startup": ("import", "predict"),
        }
    )

    def __init__(self, config: Config):
        self.config = config
        self.image_multiple = build_backbone(config.backbone).image_multiple

    def training(self, files: Workdir) -> ReconstructionTraining:
        return ReconstructionTraining(self.config, files)

    def evaluate(self, files: Workdir, request: EvaluationRequest) -> dict:
        if request.taxonomy:
            raise UserError("--taxonomy is for zero-shot runs, and this is none; leave it out")
        if request.dataset:
            return self._evaluate_elsewhere(files, request)
        config = relocated(self.config, request.data_dir)
        splits = load_splits(config, files)
        _check_levels(files.levels(), splits.test.levels)
        detector = _restore(config, files)
        names = detector.assembly.class_names
        splits = splits._replace(enrolled=enrolled_images(files, names))
        return finish(detector, splits, files, request.output, request.prompts)

    def _evaluate_elsewhere(self, files: Workdir, request: EvaluationRequest) -> dict:
        """Evaluates a run on the test images of another data set, with the run's constants."""
        own = self.config.data.dataset or self.config.data.added
        if own and request.output.path == files.path:
            raise UserError(
                f"--dataset={request.dataset} would replace what {files.path} holds of its own "
                "data set: give --output, a folder for these results"
            )
        data = dataclasses.replace(
            self.config.data,
            dataset=request.dataset,
            data_dir=request.data_dir or "data",
            classes=(),
        )
        config = dataclasses.replace(self.config, data=data)
        calibration = files.read_calibration()
        detector = _restore(config, files, calibration.step)
        test = of_classes(load_test_images(config, files), detector.assembly.class_names)
        _check_levels(files.levels(), test.levels)
        if not len(test):
            raise UserError(
                f"--dataset={request.dataset} has no test image of "
                f"{', '.join(test.class_names) or 'the run, which has no class yet'}"
            )
        none = test.select([])
        splits = Splits(none, none, test)
        return finish(detector, splits, files, request.output, calibration=calibration)

    def base(self, files: Workdir) -> Base:
        return base_of(_restore(self.config, files, files.read_calibration().step), files)

    def begin(self, files: Workdir, base: Base, levels: Levels | None) -> None:
        begin(self.config, files, base, levels)

    def enroll(
        self, files: Workdir, class_name: str, images: np.ndarray, filenames: tuple[str, ...]
    ) -> tuple[str, Calibration]:
        return enroll(self.config, files, class_name, images, filenames)

    def remove(self, files: Workdir, class_name: str) -> tuple[str, Calibration]:
        return remove(self.config, files, class_name)

    def evaluate_weights(self, path: str, prompt_images: list[str], output: Workdir) -> dict:
        from promptmad_jax.methods.reconstruction.weight_file import evaluate_weights

        return evaluate_weights(self.config, path, prompt_images, output)

    def predictor(self, files: Workdir | None, defects: str) -> ClassPredictor:
        if defects:
            raise UserError("--defects is for zero-shot detectors, and this is none; leave it out")
        if files is None:
            raise UserError("give --workdir, or --weights with --config and --prompt_image")
        calibration = files.read_calibration()
        return _restore(self.config, files, calibration.step).predictor(calibration)

    def weights_predictor(
        self, path: str, class_name: str, prompt_image: str, levels: Levels | None
    ) -> ClassPredictor:
        from promptmad_jax.methods.reconstruction.weight_file import load_weights_predictor

        return load_weights_predictor(self.config, path, class_name, prompt_image, levels)

    def exportable(self, files: Workdir) -> ExportedReconstruction:
        detector = _restore(self.config, files, files.read_calibration().step)
        return ExportedReconstruction(detector)

    def report_maps(self, files: Workdir, step: int) -> tuple[Report, Iterator[ClassMaps]]:
        calibration = files.read_calibration()
        detector = _restore(self.config, files, step)
        report = detector.report(files.path / "report")
        return report, detector.class_maps(load_test_images(self.config, files), calibration)

    def shown_images(self, files: Workdir, keys: Sequence[Key]) -> list[ImageView]:
        settings, calibration = self.config.eval, files.read_calibration()
        test = load_test_images(self.config, files)
        rows = _rows(test, keys)
        maker = _restore(self.config, files, calibration.step).maker
        images, names = np.asarray(test.images[rows]), [name for name, _ in keys]
        maps = maker.maps(images, test.class_ids[rows])
        final = calibration.final_map(maps, settings.fusion, names)
        scores, limits = image_scores(final, settings.image_pool), calibration.thresholds
        return [
            ImageView(
                image,
                mask,
                draw_verdict(image, values, score, limits.get(name), calibration.score_range[name]),
                highest_window(values, settings.image_pool),
            )
            for name, image, mask, values, score in zip(
                names, images, test.masks[rows], final, scores, strict=True
            )
        ]

    def run_weights(self, files: Workdir) -> Canonical:
        from promptmad_jax.methods.reconstruction.weight_file import run_weights

        last = self.config.eval.checkpoint == "last"
        step = None if last else files.read_calibration().step
        detector = _restore(self.config, files, step)
        return run_weights(detector.assembly, detector.weights)

    def abstract_training(self, mesh: Mesh | AbstractMesh, platform: str) -> AbstractReconstruction:
        return abstract_training(self.config, mesh, platform)

    def benchmark_subject(self, weights: str, classes: int) -> Subject:
        from promptmad_jax.methods.reconstruction.random_detector import RandomDetector

        return RandomDetector(self.config, weights, classes)


def _check_levels(run: Levels | None, data: Levels | None) -> None:
    """Warns if the images are scaled otherwise than those that the run was trained on."""
    if run is not None and run != data:
        read = "8 bits" if data is None else data
        warn(f"the run was trained on images read as {run}, and this data set is read as {read}")


def _restore(config: Config, files: Workdir, step: int | None = None) -> TrainedDetector:
    """The detector of a run, at a step or at its newest checkpoint."""
    assembly = reassemble(config, files)
    return TrainedDetector(assembly, restore_weights(assembly, files, step))


def _rows(test: ImageSet, keys: Sequence[Key]) -> np.ndarray:
    """The rows of the images, int [n]."""
    names = (test.class_names[k] for k in test.class_ids)
    places = {key: i for i, key in enumerate(zip(names, test.filenames, strict=True))}
    missing = [key for key in keys if key not in places]
    if missing:
        raise UserError(f"the prepared data set no longer has the test image {missing[0][1]}")
    return np.array([places[key] for key in keys])
