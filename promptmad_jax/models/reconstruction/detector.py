"""A backbone and a model together: images in, anomaly maps out."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from promptmad_jax.data.preprocess import normalize
from promptmad_jax.models.backbone.neck import Features, features_from_levels
from promptmad_jax.models.backbone.protocol import Backbone
from promptmad_jax.models.functional import Network, Params, Stats
from promptmad_jax.models.layers.attention import Text
from promptmad_jax.models.reconstruction import memory
from promptmad_jax.models.reconstruction.memory import Match, Memory, MemoryConfig
from promptmad_jax.models.reconstruction.outputs import anomaly_maps
from promptmad_jax.runtime.cpu.chunking import WHOLE_BATCH, Chunking, map_chunks


class Frozen(NamedTuple):
    """Arrays that training does not change.

    Attributes:
        backbone: its parameters, a nested dict of arrays.
        text: tokens [K, T, d] and mask [K, T] by class, or None for a model without text.
        memory: the classes' memories, or None without one.
        moments: float32 [2, C], mean and standard deviation of the neck's channels over the
            training images; None leaves them as they are.
    """

    backbone: Params
    text: Text | None
    memory: Memory | None = None
    moments: jax.Array | None = None


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
        uses_fine_levels: the model reads the levels on twice and four times the token grid.
        memory: settings of the memory, or None without one.
        chunking: how much of a batch is computed at once.
    """

    backbone: Backbone
    network: Network
    image_size: int
    uses_fine_levels: bool
    memory: MemoryConfig | None = None
    chunking: Chunking = WHOLE_BATCH

    def features(self, frozen: Frozen, images: jax.Array) -> Features:
        """Features of images [B, S, S, 3], 0..255 (uint8 or float32); see `scale_neck`."""

        def of_chunk(images):
            levels = self.backbone(frozen.backbone, normalize(images))
            features = features_from_levels(levels, self.uses_fine_levels)
            if self.memory is None:
                return features
            strides = self.backbone.strides
            return features._replace(patches=memory.patch_features(levels, strides, self.memory))

        return map_chunks(of_chunk, self.chunking.backbone, images)

    def scale_neck(self, frozen: Frozen, neck: jax.Array) -> jax.Array:
        """The neck's features [B, h, w, C] as the network reads them: standardised if asked."""
        if frozen.moments is None:
            return neck
        mean, deviation = frozen.moments[:, None, None, None]
        return (neck - mean) / deviation

    def nearest(
        self, frozen: Frozen, features: Features, class_ids: jax.Array, image_ids: jax.Array
    ) -> jax.Array | None:
        """Places of the nearest patches in the memory, see `memory.search`; None without one."""
        if self.memory is None:
            return None
        limit = self.chunking.search
        return memory.search(frozen.memory, features.patches, class_ids, image_ids, limit)

    def match(
        self,
        frozen: Frozen,
        features: Features,
        class_ids: jax.Array,
        nearest: jax.Array | None,
    ) -> Match | None:
        """The comparison with these patches of the memory; None without one."""
        if nearest is None:
            return None
        return memory.match(frozen.memory, features.patches, class_ids, nearest)

    def bank(self, params: Params, stats: Stats, frozen: Frozen, prompts: jax.Array) -> Bank:
        """The class bank of one prompt image per class, uint8 [K, S, S, 3]."""
        model = self.network.bind(params, stats)
        neck = self.scale_neck(frozen, self.features(frozen, prompts).neck)
        return Bank(model.encode_prompt(neck, frozen.text), frozen.text)

    def maps(self, *inputs: Any) -> dict[str, jax.Array]:
        """The maps of `described_maps` alone."""
        return self.described_maps(*inputs)[0]

    def described_maps(
        self,
        params: Params,
        stats: Stats,
        frozen: Frozen,
        bank: Bank,
        images: jax.Array,
        class_ids: jax.Array,
        image_ids: jax.Array,
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """Anomaly maps [B, S, S] of images uint8 [B, S, S, 3] of classes int32 [B], by name.

        Args:
            image_ids: int32 [B], rows of the training set, whose own patches in the memory do not
                count; -1 for images that are not of it.

        Returns:
            The maps, and the images' descriptions float32 [B, D], see `describe`.
        """

        def of_chunk(*samples):
            model, *inputs = self._inputs(params, stats, frozen, bank, *samples)
            features, *_, match = inputs
            maps = anomaly_maps(model.predict(*inputs), features.neck, self.image_size, match)
            return maps, _describe(features.neck, samples[0])

        return map_chunks(of_chunk, self.chunking.maps, images, class_ids, image_ids)

    def describe(self, frozen: Frozen, images: jax.Array) -> jax.Array:
        """Descriptions float32 [B, D] of images uint8 [B, S, S, 3] as a whole.

        Mean and standard deviation of the neck's channels, then of the colours, 0..1.
        """
        return _describe(self.scale_neck(frozen, self.features(frozen, images).neck), images)

    def diffusion_steps(
        self,
        params: Params,
        stats: Stats,
        frozen: Frozen,
        bank: Bank,
        images: jax.Array,
        class_ids: jax.Array,
        image_ids: jax.Array,
    ) -> jax.Array:
        """The mask's logit after each diffusion step, [T, B, 4h, 4w]; see `maps`."""
        inputs = images, class_ids, image_ids
        model, *inputs = self._inputs(params, stats, frozen, bank, *inputs)
        return model.diffusion_steps(*inputs)

    def _inputs(self, params, stats, frozen, bank, images, class_ids, image_ids) -> tuple[Any, ...]:
        features = self.features(frozen, images)
        nearest = self.nearest(frozen, features, class_ids, image_ids)
        return (
            self.network.bind(params, stats),
            features._replace(neck=self.scale_neck(frozen, features.neck)),
            bank.prompt[class_ids],
            text_of(bank.text, class_ids),
            self.match(frozen, features, class_ids, nearest),
        )


def _describe(neck: jax.Array, images: jax.Array) -> jax.Array:
    colours = images.astype(jnp.float32) / 255
    parts = [f(x, axis=(1, 2)) for x in (neck, colours) for f in (jnp.mean, jnp.std)]
    return jnp.concatenate(parts, axis=-1)


def text_of(text: Text | None, class_ids: jax.Array) -> Text | None:
    """Text tokens of each sample's class."""
    if text is None:
        return None
    return Text(jnp.asarray(text.tokens)[class_ids], jnp.asarray(text.mask)[class_ids])
