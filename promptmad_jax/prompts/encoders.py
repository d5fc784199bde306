"""Text encoders: CLIP with weights, and a small random tower."""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promptmad_jax.clip.config import ClipTextConfig
from promptmad_jax.clip.files import ClipFiles, content_hash, find_files, tokenizer_of
from promptmad_jax.clip.loading import load_clip
from promptmad_jax.clip.text import ClipText, encode_ids
from promptmad_jax.clip.tokenizer import byte_tokenizer, tokenize
from promptmad_jax.clip.transformer import graph_and_shapes, random_params
from promptmad_jax.prompts.config import TextConfig

_BATCH = 64  # phrases per call of the tower


@dataclass(frozen=True)
class TextEncoder:
    """A source of text vectors.

    Attributes:
        fingerprint: differs between encoders whose vectors may differ.
        encode: phrases to float32 [N, d], not normalised; loads the weights.
    """

    fingerprint: str
    encode: Callable[[tuple[str, ...]], np.ndarray]


def clip_encoder(weights: str) -> TextEncoder:
    """CLIP's text tower of a hub id, file or folder, loaded when it encodes.

    Raises:
        UserError: files are missing; `encode` raises it for files that do not fit.
    """
    files = find_files(weights, "text.weights")
    return TextEncoder(content_hash(files), partial(_encode_clip, files))


def _encode_clip(files: ClipFiles, phrases: tuple[str, ...]) -> np.ndarray:
    clip, params = load_clip(files.weights, files.config, ("text",))
    ids = tokenize(tokenizer_of(files, clip.text), phrases, clip.text.context)
    return _encode(graph_and_shapes(ClipText, clip.text)[0], params["text"], ids)


def random_encoder(config: TextConfig) -> TextEncoder:
    """An untrained tower over bytes, of `config`'s width, layers, heads and seed.

    Its vectors tell phrases apart by their letters and mean nothing.
    """
    tower = ClipTextConfig(
        vocabulary=514,
        context=256,
        width=config.width,
        hidden=4 * config.width,
        layers=config.layers,
        heads=config.heads,
        projection=config.width,
        eos_id=513,
    )
    fingerprint = f"random:{astuple(tower)}:{config.seed}"
    return TextEncoder(fingerprint, partial(_encode_random, tower, config.seed))


def _encode_random(tower: ClipTextConfig, seed: int, phrases: tuple[str, ...]) -> np.ndarray:
    graph, _ = graph_and_shapes(ClipText, tower)
    params = random_params(ClipText, tower, jax.random.key(seed))
    return _encode(graph, params, tokenize(byte_tokenizer(), phrases, tower.context))


def _encode(graph: nnx.GraphDef, params: dict, ids: np.ndarray) -> np.ndarray:
    """Encodes ids [N, L] as vectors [N, d], in batches of one size."""
    params = jax.tree.map(jnp.asarray, params)
    size = min(_BATCH, len(ids))
    padded = np.concatenate([ids, np.repeat(ids[-1:], -len(ids) % size, axis=0)])
    batches = padded.reshape(-1, size, ids.shape[1])
    vectors = [np.asarray(encode_ids(graph, params, batch)) for batch in batches]
    return np.concatenate(vectors)[: len(ids)]
