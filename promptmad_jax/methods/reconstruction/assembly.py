"""From a configuration to the parts of a run: shared by train, evaluate and predict."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from promptmad_jax.config import Config, for_platform
from promptmad_jax.evaluation.inference import InferencePrograms
from promptmad_jax.models.backbone.backbone import (
    build_backbone,
    load_backbone,
    weights_digest,
)
from promptmad_jax.models.backbone.protocol import Backbone, level_channels
from promptmad_jax.models.functional import Network, Params
from promptmad_jax.models.layers.attention import Text, adapt_attention
from promptmad_jax.models.reconstruction.detector import Detector, Frozen
from promptmad_jax.models.reconstruction.onenip import OneNIP
from promptmad_jax.models.reconstruction.promptmad import PromptMAD
from promptmad_jax.models.reconstruction.segmentor import InputSizes
from promptmad_jax.models.reconstruction.uniad import UniAD
from promptmad_jax.prompts.embeddings import TextTokens, encode_classes
from promptmad_jax.prompts.vocabulary import user_classes
from promptmad_jax.runs.frozen_weights import FrozenWeights
from promptmad_jax.runs.memory_file import MEMORY_FILE, read_memory
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.compute_dtype import set_compute_dtype
from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.cpu.chunking import WHOLE_BATCH, Chunking, chunking_for
from promptmad_jax.runtime.cpu.memory import hand_back_after_compilations
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.key_streams import KeyStreams
from promptmad_jax.runtime.mesh import make_mesh, open_channels, replicate
from promptmad_jax.runtime.processes import leader_first, this_run


@dataclass(frozen=True, eq=False)
class Assembly:
    """A run's static parts and frozen arrays.

    Attributes:
        text: None for a model without text.
        prompts: uint8 [K, S, S, 3], one prompt image per class.
    """

    config: Config
    mesh: Mesh
    detector: Detector
    frozen: Frozen
    class_names: tuple[str, ...]
    text: TextTokens | None
    prompts: np.ndarray

    @property
    def network(self) -> Network:
        """The trained network."""
        return self.detector.network

    @property
    def frozen_weights(self) -> FrozenWeights:
        """The files of the backbone's weights."""
        return backbone_weights(self.config)

    @functools.cached_property
    def programs(self) -> InferencePrograms:
        """Inference, compiled once for all weights."""
        size = self.config.eval.batch_size
        return InferencePrograms(self.detector, self.frozen, self.mesh, size, self.prompts)

    def with_frozen(self, **arrays: Any) -> "Assembly":
        """The same parts with these fields of `Frozen`."""
        frozen = self.frozen._replace(**replicate(arrays, self.mesh))
        return dataclasses.replace(self, frozen=frozen)

    def with_prompts(self, prompts: np.ndarray) -> "Assembly":
        """The same parts with other prompt images."""
        return dataclasses.replace(self, prompts=prompts)


def backbone_weights(config: Config) -> FrozenWeights:
    """The files of the configured backbone's weights."""
    digest = functools.partial(weights_digest, config.backbone)
    return FrozenWeights("backbone.weights", config.backbone.weights, digest)


def class_text(config: Config, class_names: tuple[str, ...]) -> TextTokens | None:
    """The text tokens of the classes; None for a model without text."""
    if not has_text(config):
        if config.text.vocabulary:
            user_classes(config.text.vocabulary, class_names)
            warn(
                "text.vocabulary is given, but no part of this model reads words: leave it out, or "
                "add --config.segmentor.text=True --config.segmentor.attention_layers=1"
            )
        return None
    cache = str(Path(config.data.cache) / "text_cache")
    encode = lambda: encode_classes(config.text, class_names, cache)
    return leader_first(this_run(), config.data.cache, encode)


def has_text(config: Config) -> bool:
    """Returns True if a part of the model reads text tokens."""
    if config.model != "promptmad":
        return False
    if not config.memory.patches:
        # Without a memory the parameters are those of older runs, whatever reads the text.
        return True
    reconstructor, segmentor = config.reconstructor, config.segmentor
    rebuilt = reconstructor.text_in_decoder or reconstructor.text_in_prompt
    segmented = segmentor.attention_layers or config.diffusion.steps
    return (reconstructor.enabled and rebuilt) or bool(segmentor.text and segmented)


def assemble(
    config: Config,
    class_names: tuple[str, ...],
    text: TextTokens | None,
    prompts: np.ndarray,
    backbone_params: Params | None = None,
) -> Assembly:
    """Lays backbone and text tokens on the mesh.

    Args:
        text: from `class_text`, or as a run stores it.
        backbone_params: None loads those of the configuration.
    """
    mesh = make_mesh(config.mesh)
    platform = mesh.devices.flat[0].platform
    backbone_config = for_platform(config, platform).backbone
    open_channels(mesh)
    hand_back_after_compilations()
    if backbone_params is None:
        backbone, backbone_params = load_backbone(backbone_config)
    else:
        backbone = build_backbone(backbone_config)
    tokens = None if text is None else Text(text.tokens, text.mask)
    chunking = chunking_for(mesh, config.data.image_size)
    detector = make_detector(config, backbone, text, platform, chunking)
    frozen = replicate(Frozen(backbone_params, tokens), mesh)
    return Assembly(config, mesh, detector, frozen, class_names, text, prompts)


def reassemble(config: Config, files: Workdir) -> Assembly:
    """The parts of a run; class names, prompts and text tokens are read from its bank."""
    class_names, prompts, text, moments = files.read_bank()
    assembly = assemble(config, class_names, text, prompts)
    if moments is not None:
        assembly = assembly.with_frozen(moments=moments)
    if not config.memory.patches:
        return assembly
    stored = read_memory(files)
    if stored is None:
        raise UserError(
            f"{files.path / MEMORY_FILE} is missing: run `promptmad train` again on {files.path}, "
            "which makes it anew"
        )
    return assembly.with_frozen(memory=stored.trained.memory)


def make_detector(
    config: Config,
    backbone: Backbone,
    text: TextTokens | Text | None,
    platform: str = "cpu",
    chunking: Chunking = WHOLE_BATCH,
) -> Detector:
    """The static detector of a configuration; of the text only the width is read."""
    config = for_platform(config, platform)
    text_width = 0 if text is None else text.tokens.shape[-1]
    size = config.data.image_size
    grid = (size // backbone.strides[-1],) * 2
    reconstructor, channels = config.reconstructor, sum(backbone.channels)
    memory = config.memory if config.memory.patches else None
    match config.model:
        case "uniad":
            build = lambda rngs: UniAD(reconstructor, channels, grid, rngs)
        case "onenip":
            build = lambda rngs: OneNIP(reconstructor, config.refiner, channels, grid, rngs)
        case "promptmad":
            settings = reconstructor, config.segmentor, config.diffusion
            sizes = InputSizes(level_channels(backbone), grid, text_width)
            build = lambda rngs: PromptMAD(*settings, sizes, rngs, memory)

    def adapted(rngs: KeyStreams) -> nnx.Module:
        model = set_compute_dtype(build(rngs), config.compute_dtype)
        return adapt_attention(model, chunking.attention, platform)

    network = Network.create(adapted)
    fine = config.model == "promptmad" and config.segmentor.laterals
    return Detector(backbone, network, size, fine, memory, chunking)
