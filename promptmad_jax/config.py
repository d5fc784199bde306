"""The whole configuration as frozen dataclasses, and its ml_collections form.

A config file builds a `ConfigDict`, users override it on the command line, and `parse` turns it
into these classes at the border: unknown keys and wrong types end there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from promptmad_jax.data.config import DataConfig
from promptmad_jax.data.defect_types.source import SourceConfig
from promptmad_jax.data.pseudo_anomaly import PseudoAnomalyConfig
from promptmad_jax.evaluation.compat.modes import check_mode
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.losses.defect_types import DefectTypeLossConfig
from promptmad_jax.losses.objective import LossConfig
from promptmad_jax.models.backbone.backbone import BackboneConfig
from promptmad_jax.models.reconstruction.diffusion import DiffusionConfig
from promptmad_jax.models.reconstruction.encoder import ReconstructorConfig
from promptmad_jax.models.reconstruction.onenip import RefinerConfig
from promptmad_jax.models.reconstruction.segmentor import SegmentorConfig
from promptmad_jax.models.zero_shot.config import DapoConfig
from promptmad_jax.models.zero_shot.loading import ClipSource
from promptmad_jax.prompts.config import TextConfig
from promptmad_jax.runtime.dataclass_parser import _parse
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.mesh import MeshConfig
from promptmad_jax.training.loop import (
    TrainConfig,
)
from promptmad_jax.training.optimizer import OptimizerConfig


@dataclass(frozen=True)
class Config:
    """One run. `name` is for people; `model` is "promptmad", "onenip", "uniad" or "zero_shot".

    For the last, `data` is what it is evaluated on and `source` what it learns from; it reads
    `clip`, `dapo` and `type_loss`, and none of the groups from `pseudo_anomaly` to `loss`.
    """

    name: str = "promptmad"
    model: str = "promptmad"
    data: DataConfig = field(default_factory=DataConfig)
    pseudo_anomaly: PseudoAnomalyConfig = field(default_factory=PseudoAnomalyConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    text: TextConfig = field(default_factory=TextConfig)
    reconstructor: ReconstructorConfig = field(default_factory=ReconstructorConfig)
    refiner: RefinerConfig = field(default_factory=RefinerConfig)
    segmentor: SegmentorConfig = field(default_factory=SegmentorConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    clip: ClipSource = field(default_factory=ClipSource)
    dapo: DapoConfig = field(default_factory=DapoConfig)
    type_loss: DefectTypeLossConfig = field(default_factory=DefectTypeLossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)


ZERO_SHOT = "zero_shot"
CHOICES = {
    "model": ("promptmad", "onenip", "uniad", ZERO_SHOT),
    "reconstructor.text_tokens": ("normal", "all"),
    "diffusion.prior": ("coarse", "zero"),
    "diffusion.objective": ("x0", "epsilon"),
    "diffusion.start": ("mean", "sample"),
    "optimizer.schedule": ("step", "cosine", "constant"),
    "train.resident": ("auto", "yes", "no"),
    "train.fine_dtype": ("bfloat16", "float32"),
    "eval.fusion": (
        "calibrated",
        "image_local",
        "standardized",
        "reconstruction",
        "segmentor",
    ),
    "eval.checkpoint": ("last", "held_out"),
}


def parse(values: Mapping[str, Any]) -> Config:
    """Nested mappings (a `ConfigDict`, or JSON) to a Config.

    Raises:
        UserError: an unknown key, with the nearest known one, a wrong type, or a value that is none
            of its choices.
    """
    config = _parse(Config, values, "config")
    for path, choices in CHOICES.items():
        value = _lookup(config, path)
        if value not in choices:
            raise UserError(
                f"config.{path} is {value!r}; it can be {', '.join(map(repr, choices))}"
            )
    if config.model == ZERO_SHOT:
        _check_zero_shot(config)
    elif config.data.image_size % 16 or config.data.image_size < 32:
        raise UserError(
            f"config.data.image_size is {config.data.image_size}; "
            "it must be a multiple of 16, at least 32"
        )
    for mode in config.eval.compat:
        check_mode(mode)
    _check_share("data.holdout", config.data.holdout, 0.5)
    _check_share("eval.pixel_fpr", config.eval.pixel_fpr, 1)
    _check_share("eval.image_fpr", config.eval.image_fpr, 1)
    if config.eval.checkpoint == "held_out" and not config.data.holdout:
        raise UserError(
            "config.eval.checkpoint is 'held_out', but data.holdout is 0, so no image is held out "
            "to choose by: set data.holdout (0.1 keeps one in ten), or leave it at 'last'"
        )
    if config.model == "uniad" and config.eval.fusion != "reconstruction":
        raise UserError(
            f"config.eval.fusion is {config.eval.fusion!r}; UniAD segments nothing, so there is no "
            "map to fuse: set it to 'reconstruction'"
        )
    return config


def _check_zero_shot(config: Config) -> None:
    source, dapo = config.source, config.dapo
    _check_share("source.mosaic", source.mosaic, 1)
    if dapo.image_size != config.data.image_size:
        raise UserError(
            f"config.dapo.image_size is {dapo.image_size} and data.image_size "
            f"{config.data.image_size}; they are the same thing: set both"
        )
    if config.eval.checkpoint != "last":
        raise UserError(
            "config.eval.checkpoint is 'held_out'; a zero-shot detector has no image of its target "
            "to choose by: leave it at 'last'"
        )
    if dapo.trains and not source.dataset:
        raise UserError(
            "config.source.dataset is empty, so there is nothing to train on: name a prepared data "
            "set with annotated defects, or train nothing (--config=clip_zero_shot.py)"
        )
    if not dapo.trains and (source.dataset or config.train.steps):
        raise UserError(
            "config.dapo has nothing to train: leave source.dataset empty and train.steps at 0"
        )
    if source.mosaic and not dapo.image_tokens and config.train.cache_images:
        raise UserError(
            "config.source.mosaic makes new images in every step, whose features cannot be cached: "
            "set train.cache_images=False"
        )
    if config.data.holdout:
        raise UserError(
            f"config.data.holdout is {config.data.holdout}; a zero-shot detector trains on no "
            "image of its target, so that there is none to hold out: leave it at 0"
        )
    if source.mosaic and (config.train.batch_size < 4 or dapo.image_size % 2):
        raise UserError(
            "config.source.mosaic puts four images of a batch into one at half size: set "
            f"train.batch_size (now {config.train.batch_size}) to 4 or more and data.image_size "
            f"(now {dapo.image_size}) to an even number"
        )
    check_apart(config)


def check_apart(config: Config) -> None:
    """Raises UserError where a product would be both trained on and tested."""
    source, data = config.source, config.data
    if source.dataset.partition(":")[0] != data.dataset.partition(":")[0]:
        return
    both = sorted(set(source.classes) & set(data.classes))
    if both or not source.classes or not data.classes:
        which = ", ".join(both) if both else "all its classes"
        raise UserError(
            f"config.source.dataset and data.dataset are both {data.dataset}, and {which} would be "
            "trained on and tested; choose other source.classes and data.classes"
        )


def _check_share(path: str, value: float, most: float) -> None:
    if not 0 <= value <= most:
        raise UserError(f"config.{path} is {value}; it must lie between 0 and {most}")


def _lookup(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = getattr(config, name)
    return config


def check_batch(config: Config, devices: int) -> None:
    """Raises UserError where the batch does not divide over the devices, with sizes that do."""
    size = config.train.batch_size
    if size % devices:
        below, above = size // devices * devices, -(-size // devices) * devices
        near = f"{below} or {above}" if below else f"{above}"
        raise UserError(
            f"train.batch_size={size} does not divide over {devices} devices; {near} does"
        )
