"""A backbone and a model together: images in, anomaly maps out."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from promptmad_jax.data.preprocess import normalize
from promptmad_jax.models.backbone.backbone import Backbone
from promptmad_jax.models.backbone.neck import Features, features_from_levels
from promptmad_jax.models.functional import Network, Params, Stats
from promptmad_jax.models.layers.attention import Text
from promptmad_jax.models.reconstruction.outputs import anomaly_maps
from promptmad_jax.runtime.cpu.chunking import WHOLE_BATCH, Chunking, map_chunks


class Frozen(NamedTuple):
    """Arrays that training does not change.

    Attributes:
        backbone: its parameters, a nested dict of arrays.
        text: tokens [K, T, d] and mask [K, T] by class, or None for a model without text.
    """

    backbone: Params
    text: Text | None


class Bank(NamedTuple):
    """The class bank: prompt tokens [K, N, D] after the encoder, and the text tokens."""

    prompt: jax.Array
    text: Text | None


@dataclass(frozen=True)
class Detector:
    """A backbone and a model without their arrays: hashable, its methods pure functions for `jit`.

    Attributes:
        backbone: images to levels.
        network: features to maps.
        image_size: S, pixels.
        uses_fine_levels: the model reads the levels at strides 4 and 8.
        chunking: how much of a batch is computed at once.
    """

    backbone: Backbone
    network: Network
    image_size: int
    uses_fine_levels: bool
    chunking: Chunking = WHOLE_BATCH

    def features(self, frozen: Frozen, images: jax.Array) -> Features:
        """Features of images [B, S, S, 3], 0..255 (uint8 or float32)."""

        def of_chunk(images):
            levels = self.backbone(frozen.backbone, normalize(images))
            return features_from_levels(levels, self.uses_fine_levels)

        return map_chunks(of_chunk, self.chunking.backbone, images)

    def bank(self, params: Params, stats: Stats, frozen: Frozen, prompts: jax.Array) -> Bank:
        """The class bank of one prompt image per class, uint8 [K, S, S, 3]."""
        model = self.network.bind(params, stats)
        neck = self.features(frozen, prompts).neck
        return Bank(model.encode_prompt(neck, frozen.text), frozen.text)

    def maps(
        self,
        params: Params,
        stats: Stats,
        frozen: Frozen,
        bank: Bank,
        images: jax.Array,
        class_ids: jax.Array,
    ) -> dict[str, jax.Array]:
        """Anomaly maps [B, S, S] of images uint8 [B, S, S, 3] of classes int32 [B]."""

        def of_chunk(images, class_ids):
            model, features, *rest = self._inputs(params, stats, frozen, bank, images, class_ids)
            outputs = model.predict(features, *rest)
            return anomaly_maps(outputs, features.neck, self.image_size)

        return map_chunks(of_chunk, self.chunking.maps, images, class_ids)

    def diffusion_steps(
        self,
        params: Params,
        stats: Stats,
        frozen: Frozen,
        bank: Bank,
        images: jax.Array,
        class_ids: jax.Array,
    ) -> jax.Array:
        """The mask's logit after each diffusion step, [T, B, S / 4, S / 4]."""
        model, features, prompt, text = self._inputs(params, stats, frozen, bank, images, class_ids)
        return model.diffusion_steps(features, prompt, text)

    def _inputs(self, params, stats, frozen, bank, images, class_ids) -> tuple[Any, ...]:
        model = self.network.bind(params, stats)
        features = self.features(frozen, images)
        return model, features, bank.prompt[class_ids], text_of(bank.text, class_ids)


def text_of(text: Text | None, class_ids: jax.Array) -> Text | None:
    """Text tokens of each sample's class."""
    if text is None:
        return None
    return Text(jnp.asarray(text.tokens)[class_ids], jnp.asarray(text.mask)[class_ids])
