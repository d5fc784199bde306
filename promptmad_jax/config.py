"""The whole configuration as frozen dataclasses, and its ml_collections form.

A config file builds a `ConfigDict`, users override it on the command line, and `parse` turns it
into these classes, whose fields state types, choices and bounds. Each group checks itself; this
module checks what must agree between groups.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from promptmad_jax.data.config import DataConfig
from promptmad_jax.data.defect_types.source import SourceConfig
from promptmad_jax.data.pseudo_anomaly.config import PseudoAnomalyConfig
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.losses.defect_types import DefectTypeLossConfig
from promptmad_jax.losses.objective import LossConfig
from promptmad_jax.models.backbone.backbone import BackboneConfig, build_backbone
from promptmad_jax.models.reconstruction.diffusion import DiffusionConfig
from promptmad_jax.models.reconstruction.encoder import ReconstructorConfig
from promptmad_jax.models.reconstruction.memory import MemoryConfig
from promptmad_jax.models.reconstruction.onenip import RefinerConfig
from promptmad_jax.models.reconstruction.segmentor import SegmentorConfig
from promptmad_jax.models.zero_shot.config import DapoConfig
from promptmad_jax.models.zero_shot.loading import ClipSource
from promptmad_jax.prompts.config import TextConfig
from promptmad_jax.runtime.dataclass_parser import parse_dataclass
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.mesh import MeshConfig
from promptmad_jax.runtime.paths import absolute, path_or_id
from promptmad_jax.training.config import TrainConfig
from promptmad_jax.training.optimizer import OptimizerConfig


@dataclass(frozen=True)
class Config:
    """One run.

    A zero-shot run reads `data`, `source`, `clip`, `dapo`, `type_loss`, `optimizer`, `train`,
    `eval` and `mesh`; the others read all groups but `source`, `clip`, `dapo` and `type_loss`.

    Attributes:
        name: a label for people.
        model: detector to build; "zero_shot" is DAPO, MultiADS or plain CLIP, as `dapo` says.
        compute_dtype: of activations in the networks; "auto" takes bfloat16 on accelerators and
            float32 on CPUs. bfloat16 is for all networks, float32 for those whose own `dtype` does
            not say otherwise. Parameters, resizing, distances, norms, softmax and losses are
            float32 always.
    """

    name: str = "promptmad"
    model: Literal["promptmad", "onenip", "uniad", "zero_shot"] = "promptmad"
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    data: DataConfig = field(default_factory=DataConfig)
    pseudo_anomaly: PseudoAnomalyConfig = field(default_factory=PseudoAnomalyConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    text: TextConfig = field(default_factory=TextConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
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


# Settings that hold a path, and those that hold one or a hub id.
PATHS = (
    ("data", "data_dir"),
    ("data", "cache_dir"),
    ("data", "texture_dir"),
    ("data", "taxonomy"),
    ("source", "data_dir"),
    ("source", "taxonomy"),
    ("text", "vocabulary"),
)
PATHS_OR_IDS = (("backbone", "weights"), ("clip", "weights"), ("text", "weights"))
_WORDS = ("random", "shipped", "folders")  # Values of these settings that are no path.


def parse(values: Mapping[str, Any]) -> Config:
    """Builds a Config from nested mappings (a `ConfigDict`, or JSON).

    Raises:
        UserError: an unknown key, with the nearest known one; a wrong type, choice or range; or
            groups that do not agree.
    """
    config = parse_dataclass(Config, absolute_paths(values), "config")
    for check in _CHECKS[config.model]:
        check(config)
    return config


def _check_size(config: Config) -> None:
    size = config.data.image_size
    backbone = build_backbone(config.backbone)
    step = backbone.image_multiple
    if size % step or size < 2 * step:
        below = max(size // step, 2) * step
        raise UserError(
            f"config.data.image_size is {size}; {backbone.name} takes multiples of {step}, at "
            f"least {2 * step}: {below} or {below + step}"
        )
    if config.eval.image_pool > size:
        raise UserError(
            f"config.eval.image_pool is {config.eval.image_pool}, more than data.image_size, "
            f"{size}: the image score would average more pixels than the map has"
        )


def _check_laterals(config: Config) -> None:
    backbone = build_backbone(config.backbone)
    last = backbone.strides[-1]
    missing = [f"{s:g}" for s in (last / 2, last / 4) if s not in backbone.strides]
    if config.segmentor.laterals and missing:
        raise UserError(
            f"config.segmentor.laterals is True, but {backbone.name} has no level at stride "
            f"{' or '.join(missing)}: set it to False"
        )


def _check_levels(config: Config) -> None:
    backbone, memory = build_backbone(config.backbone), config.memory
    if not memory.patches:
        return
    last, known = backbone.strides[-1], sorted(set(backbone.strides))
    if not set(memory.levels) <= set(known):
        raise UserError(
            f"config.memory.levels is {memory.levels}; {backbone.name} has levels at stride "
            f"{', '.join(map(str, known))}"
        )
    fitting = [last // part for part in (1, 2, 4) if last % part == 0]
    if memory.stride not in fitting:
        raise UserError(
            f"config.memory.stride is {memory.stride}; with {backbone.name} it must be "
            f"{' or '.join(map(str, fitting))}"
        )


def _check_checkpoint(config: Config) -> None:
    if config.eval.checkpoint == "held_out" and not config.data.holdout:
        raise UserError(
            "config.eval.checkpoint is 'held_out', but data.holdout is 0, so no image is held out "
            "to choose by: set data.holdout (0.1 keeps one in ten), or leave it at 'last'"
        )


def _check_norm_group(config: Config) -> None:
    size = config.train.batch_size
    for name in ("refiner", "segmentor"):
        group = getattr(config, name).norm_group
        if group and size % group:
            raise UserError(
                f"config.{name}.norm_group is {group}, which does not divide train.batch_size, "
                f"{size}: set it to a number that does, or to 0 for the whole batch"
            )


def _check_memory(config: Config) -> None:
    if config.train.steps == 0 and not config.memory.patches:
        raise UserError(
            "config.train.steps is 0, so nothing would be trained, and memory.patches is 0: set "
            "one of them; train.steps=-1 leaves the length to train.epochs"
        )
    if config.eval.fusion == "weighted" and not config.memory.patches:
        raise UserError(
            "config.eval.fusion is 'weighted', which weighs the memory's map, but memory.patches "
            "is 0: set it (12288 is usual), or set eval.fusion to 'calibrated'"
        )
    if not config.reconstructor.enabled:
        if not config.memory.patches:
            raise UserError(
                "config.reconstructor.enabled is False and memory.patches is 0, so nothing tells "
                "normal from defective: set one of them"
            )
        if config.eval.fusion not in ("weighted", "segmentor"):
            raise UserError(
                f"config.eval.fusion is {config.eval.fusion!r}, which needs a reconstruction, but "
                "reconstructor.enabled is False: set eval.fusion to 'weighted'"
            )


def _check_reconstruction(config: Config) -> None:
    if not config.reconstructor.enabled:
        raise UserError(
            f"config.reconstructor.enabled is False, but {config.model} is a reconstruction; leave "
            "it at True"
        )


def _check_fusion(config: Config) -> None:
    if config.eval.fusion != "reconstruction":
        raise UserError(
            f"config.eval.fusion is {config.eval.fusion!r}; UniAD segments nothing, so it has no "
            "map to fuse: set it to 'reconstruction'"
        )


def _check_zero_shot(config: Config) -> None:
    source, dapo = config.source, config.dapo
    if dapo.image_size != config.data.image_size:
        raise UserError(
            f"config.dapo.image_size is {dapo.image_size} and data.image_size "
            f"{config.data.image_size}; they are one size: set both"
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
    if not dapo.trains and (source.dataset or config.train.steps > 0):
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
            "image of its target, so it has none to hold out: leave it at 0"
        )
    if source.mosaic and (config.train.batch_size < 4 or dapo.image_size % 2):
        raise UserError(
            "config.source.mosaic puts four images of a batch into one at half size: set "
            f"train.batch_size (now {config.train.batch_size}) to 4 or more and data.image_size "
            f"(now {dapo.image_size}) to an even number"
        )


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


_CHECKS = {
    "promptmad": (
        _check_size,
        _check_laterals,
        _check_levels,
        _check_norm_group,
        _check_checkpoint,
        _check_memory,
    ),
    "onenip": (
        _check_size,
        _check_levels,
        _check_norm_group,
        _check_checkpoint,
        _check_memory,
        _check_reconstruction,
    ),
    "uniad": (
        _check_size,
        _check_levels,
        _check_checkpoint,
        _check_memory,
        _check_reconstruction,
        _check_fusion,
    ),
    "zero_shot": (_check_zero_shot, check_apart),
}


def with_dtype(config: Config, dtype: str) -> Config:
    """The configuration with networks that compute in this type."""
    backbone = dataclasses.replace(config.backbone, dtype=dtype)
    dapo = dataclasses.replace(config.dapo, dtype=dtype)
    return dataclasses.replace(config, compute_dtype=dtype, backbone=backbone, dapo=dapo)


def for_platform(config: Config, platform: str) -> Config:
    """The configuration with "auto" replaced by what it is on "cpu", "cuda" or "tpu"."""
    pseudo = config.pseudo_anomaly
    if pseudo.batching == "auto":
        batching = "map" if platform == "cpu" else "vmap"
        config = dataclasses.replace(
            config, pseudo_anomaly=dataclasses.replace(pseudo, batching=batching)
        )
    dtype = config.compute_dtype
    if dtype == "auto":
        dtype = "float32" if platform == "cpu" else "bfloat16"
    if dtype == "bfloat16":
        return with_dtype(config, dtype)
    return dataclasses.replace(config, compute_dtype=dtype)


def relocated(config: Config, data_dir: str, weights: str = "") -> Config:
    """The configuration with its data, and its backbone's or CLIP's weights, at other places; ""
    leaves them where they are."""
    # A model reads one of the two.
    moved = {
        "data": {"data_dir": data_dir},
        "backbone": {"weights": weights},
        "clip": {"weights": weights},
    }
    for group, values in moved.items():
        given = {key: path_or_id(value) for key, value in values.items() if value}
        new = dataclasses.replace(getattr(config, group), **given)
        config = dataclasses.replace(config, **{group: new})
    return config


def absolute_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings whose paths are absolute, so that they hold in any working directory."""
    made = {
        name: dict(own.items()) if hasattr(own, "items") else own for name, own in values.items()
    }
    for group, key in (*PATHS, *PATHS_OR_IDS):
        own = made.get(group)
        place = own.get(key) if isinstance(own, dict) else None
        if isinstance(place, str) and place and place not in _WORDS:
            own[key] = absolute(place) if (group, key) in PATHS else path_or_id(place)
    return made


def check_batch(config: Config, devices: int) -> None:
    """Raises UserError where the batch does not divide over the devices, with sizes that do."""
    size = config.train.batch_size
    if size % devices:
        below, above = size // devices * devices, -(-size // devices) * devices
        near = f"{below} or {above}" if below else f"{above}"
        raise UserError(
            f"train.batch_size={size} does not divide over {devices} devices; {near} does"
        )
