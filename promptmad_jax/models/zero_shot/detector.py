"""The static half of a zero-shot detector: words and images in, maps and scores out."""

from dataclasses import dataclass, field
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Sharding

from promptmad_jax.clip.config import ClipConfig
from promptmad_jax.clip.text import ClipText
from promptmad_jax.clip.tokenizer import Tokenizer
from promptmad_jax.clip.transformer import graph_and_shapes
from promptmad_jax.clip.vision import ClipVision
from promptmad_jax.models.functional import Params, Stats
from promptmad_jax.models.zero_shot.config import DapoConfig
from promptmad_jax.models.zero_shot.parameters import TableMoments, draw_parameters
from promptmad_jax.models.zero_shot.prompts import PromptTokens, prompt_tokens
from promptmad_jax.models.zero_shot.similarity import (
    ImageFeatures,
    image_logits,
    mean_maps,
    pair,
    states_for,
    tap_maps,
)
from promptmad_jax.models.zero_shot.text import learnt_states, written_states
from promptmad_jax.models.zero_shot.vision import ImageStates, image_features, image_states
from promptmad_jax.runtime.accelerators.attention import Platform


class FrozenClip(NamedTuple):
    """The parameters of CLIP's two towers, nested dicts of arrays; training does not change them.

    The image tower's may be stored in the detector's `dtype`.
    """

    text: Params
    vision: Params


class TrainOutputs(NamedTuple):
    """Inputs of the loss.

    Attributes:
        image_logits: [B, 2], normal and abnormal, of the class token against the pair of states.
        maps: of each tap the states' probabilities [B, S, S, K + 1].
    """

    image_logits: jax.Array
    maps: tuple[jax.Array, ...]


@dataclass(frozen=True)
class ZeroShotDetector:
    """Hashable; every method but `tokens` is a pure function of its arguments, to be jitted.

    `trainable` is what `init` gives: `text` (`normal`, `abnormal` [E, l, D], `deep`), `vision`
    (`deep`), `adapters` (by tap `kernel`, `bias`), as far as the configuration has them.
    """

    config: DapoConfig
    clip: ClipConfig
    text_graph: nnx.GraphDef = field(compare=False, repr=False)
    vision_graph: nnx.GraphDef = field(compare=False, repr=False)
    platform: Platform = "cpu"

    @classmethod
    def create(
        cls, config: DapoConfig, clip: ClipConfig, platform: Platform = "cpu"
    ) -> "ZeroShotDetector":
        """Raises UserError if this CLIP cannot carry the detector."""
        config.check(clip)
        text = graph_and_shapes(ClipText, clip.text, platform, config.dtype)[0]
        vision = graph_and_shapes(ClipVision, clip.vision, platform)[0]
        return cls(config, clip, text, vision, platform)

    def init(self, key: jax.Array, frozen: FrozenClip) -> Params:
        """Freshly drawn trainable parameters, float32; an empty dict where nothing is trained."""
        return draw_parameters(key, self.config, self.clip, _moments(frozen, jnp))

    def network(self, frozen: FrozenClip) -> "TrainableParts":
        """Initializer of a training state, with little of the frozen weights inside."""
        return TrainableParts(self.config, self.clip, _moments(frozen, np))

    def tokens(
        self, tokenizer: Tokenizer, defects: tuple[str, ...], object_name: str = "object"
    ) -> PromptTokens:
        """Token ids of K defect types in words, on the host; see `prompt_tokens`."""
        return prompt_tokens(self.config, tokenizer, self.clip.text.context, defects, object_name)

    def text_states(
        self,
        trainable: Params,
        frozen: FrozenClip,
        tokens: PromptTokens,
        spread: Sharding | None = None,
    ) -> jax.Array:
        """Unit vectors of the states, float32 [K + 1, d], the normal one first.

        Args:
            spread: of the prompts over the devices; None computes all of them on each.
        """
        tower = nnx.merge(self.text_graph, frozen.text)
        if self.config.learns_text:
            return learnt_states(tower, trainable["text"], tokens, self.config, spread)
        return written_states(tower, tokens)

    def image_states(self, trainable: Params, frozen: FrozenClip, images: jax.Array) -> ImageStates:
        """The image tower on images [B, S, S, 3], 0..255 (uint8 or float32)."""
        size = self.config.image_size
        if images.shape[1:] != (size, size, 3):
            raise ValueError(f"images of shape {images.shape}; they must be {size} x {size} x 3")
        return image_states(self._vision(frozen), trainable.get("vision", {}), images, self.config)

    def features(
        self, trainable: Params, frozen: FrozenClip, images: jax.Array | ImageStates
    ) -> ImageFeatures:
        """Patch and image features of images, or of what `image_states` gave for them."""
        if not isinstance(images, ImageStates):
            images = self.image_states(trainable, frozen, images)
        adapters = trainable.get("adapters", {})
        return image_features(self._vision(frozen), adapters, images, self.config)

    def maps(
        self,
        trainable: Params,
        frozen: FrozenClip,
        states: jax.Array,
        images: jax.Array | ImageStates,
        allowed: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """`readout` of the images' features."""
        return self.readout(self.features(trainable, frozen, images), states, allowed)

    def readout(
        self, features: ImageFeatures, states: jax.Array, allowed: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Maps and scores of a batch; what is not used of them is not computed under `jit`.

        Args:
            states: [K + 1, d], or [B, K + 1, d].
            allowed: bool [K + 1] or [B, K + 1]: the vocabulary of the image's product; None for
                all. States that are not allowed get probability 0.

        Returns:
            anomaly: [B, S, S], 0..1. types: [B, S, S, K + 1], probabilities of the states.
            image_score: [B], the higher the more anomalous. image_types: [B, K + 1],
            probabilities of the states for the class token. type_scores: [B, K + 1], the maximum
            of `types` over the pixels.
        """
        config, size = self.config, self.config.image_size
        states = states_for(states, allowed, len(features.image))
        both = pair(states)
        types = mean_maps(features.patches, states, config, size)
        if config.map_from == "pair":
            anomaly = mean_maps(features.patches, both, config, size)[..., 1]
        else:
            anomaly = types[..., 1:].sum(-1)
        image_types = jax.nn.softmax(image_logits(features.image, states, config.temperature))
        if config.score_from == "pair":
            logits = image_logits(features.image, both, config.temperature)
            score = jax.nn.softmax(logits)[:, 1]
        else:
            score = anomaly.max((1, 2)) + 1 - image_types[:, 0]
        return {
            "anomaly": anomaly,
            "types": types,
            "image_score": score,
            "image_types": image_types,
            "type_scores": types.max((1, 2)),
        }

    def train_forward(
        self,
        trainable: Params,
        frozen: FrozenClip,
        text: PromptTokens | jax.Array,
        images: jax.Array | ImageStates,
        spread: Sharding | None = None,
    ) -> TrainOutputs:
        """Computes the inputs of the loss, at full size.

        Args:
            spread: see `text_states`.
            text: token ids; or states [K + 1, d] or [B, K + 1, d], computed once, where the
                configuration trains no text.
            images: as for `features`; `ImageStates` only where it has no deep prompts for images.
        """
        config = self.config
        if isinstance(text, PromptTokens):
            text = self.text_states(trainable, frozen, text, spread)
        features = self.features(trainable, frozen, images)
        states = states_for(text, None, len(features.image))
        maps = (tap_maps(tap, states, config, config.image_size) for tap in features.patches)
        logits = image_logits(features.image, pair(states), config.temperature)
        return TrainOutputs(logits, tuple(maps))

    def _vision(self, frozen: FrozenClip) -> ClipVision:
        cast = lambda leaf: jnp.asarray(leaf, self.config.dtype)
        return nnx.merge(self.vision_graph, jax.tree.map(cast, frozen.vision))


@dataclass(frozen=True, eq=False)
class TrainableParts:
    """Draws what a detector trains, as `models.functional.Network` draws a model."""

    config: DapoConfig
    clip: ClipConfig
    table: TableMoments = field(repr=False)

    def init(self, key: jax.Array) -> tuple[Params, Stats]:
        """Freshly drawn parameters as of `ZeroShotDetector.init`, and no statistics."""
        return draw_parameters(key, self.config, self.clip, self.table), {}


def _moments(frozen: FrozenClip, xp: ModuleType) -> TableMoments:
    """With numpy on the host, with jax.numpy in a jitted function."""
    table = xp.asarray(frozen.text["token_embedding"]["embedding"], xp.float32)
    return TableMoments(table.mean(0), table.std(0))
