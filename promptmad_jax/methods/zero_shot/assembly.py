"""From a configuration to the parts of a zero-shot run."""

import functools
from dataclasses import dataclass

from jax.sharding import Mesh

from promptmad_jax.clip.files import content_hash, find_files
from promptmad_jax.clip.tokenizer import Tokenizer
from promptmad_jax.config import Config, for_platform
from promptmad_jax.evaluation.zero_shot_inference import ZeroShotMapMaker
from promptmad_jax.models.zero_shot.detector import FrozenClip, TrainableParts, ZeroShotDetector
from promptmad_jax.models.zero_shot.loading import Loaded, open_detector
from promptmad_jax.models.zero_shot.prompts import PromptTokens
from promptmad_jax.runs.frozen_weights import FrozenWeights
from promptmad_jax.runtime.cpu.memory import hand_back_after_compilations
from promptmad_jax.runtime.mesh import make_mesh, open_channels, replicate
from promptmad_jax.training.zero_shot_step import FrozenZeroShot


@dataclass(frozen=True, eq=False)
class ZeroShotAssembly:
    """A run's static parts and frozen arrays; `network` draws what is trained."""

    config: Config
    mesh: Mesh
    detector: ZeroShotDetector
    frozen: FrozenClip
    tokenizer: Tokenizer
    network: TrainableParts

    @functools.cached_property
    def maker(self) -> ZeroShotMapMaker:
        """Inference, compiled once for all weights."""
        batch_size = self.config.eval.batch_size
        return ZeroShotMapMaker(self.detector, self.frozen, self.mesh, batch_size)

    @property
    def frozen_weights(self) -> FrozenWeights:
        """The files of CLIP's weights."""
        return clip_weights(self.config)

    @property
    def caches_images(self) -> bool:
        """True if the image tower's features of the training images are computed once."""
        return self.config.train.cache_images and not self.config.dapo.image_tokens

    def frozen_inputs(self, words: tuple[str, ...]) -> FrozenZeroShot:
        """CLIP and the trained words, whose states are computed once where no text is trained."""
        tokens = self.tokens(words)
        if self.config.dapo.learns_text:
            return FrozenZeroShot(self.frozen, replicate(tokens, self.mesh))
        return FrozenZeroShot(self.frozen, self.maker.states({}, tokens))

    def tokens(self, words: tuple[str, ...], object_name: str = "object") -> PromptTokens:
        """The prompts of defect types in words."""
        return self.detector.tokens(self.tokenizer, words, object_name)


def clip_weights(config: Config) -> FrozenWeights:
    """The files of the configured CLIP's weights."""
    setting, name = "clip.weights", config.clip.weights
    digest = lambda: None if name == "random" else content_hash(find_files(name, setting))
    return FrozenWeights(setting, name, digest)


def assemble(config: Config, loaded: Loaded | None = None) -> ZeroShotAssembly:
    """Lays CLIP on the mesh, read as configured if not given; see `open_detector` for errors."""
    mesh = make_mesh(config.mesh)
    platform = mesh.devices.flat[0].platform
    dapo = for_platform(config, platform).dapo
    open_channels(mesh)
    hand_back_after_compilations()
    if loaded is None:
        loaded = open_detector(dapo, config.clip)
    detector = ZeroShotDetector.create(dapo, loaded.detector.clip, platform)
    network = detector.network(loaded.frozen)
    frozen = replicate(loaded.frozen, mesh)
    return ZeroShotAssembly(config, mesh, detector, frozen, loaded.tokenizer, network)
