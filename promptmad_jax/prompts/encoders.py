"""The text encoders behind `text.source`: CLIP with weights, and the small random tower."""

import hashlib
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promptmad_jax.clip.loading import load_text
from promptmad_jax.clip.text import ClipText, encode_ids
from promptmad_jax.clip.tokenizer import OPENAI_FILE, byte_tokenizer, load_tokenizer, tokenize
from promptmad_jax.clip.transformer import graph_and_shapes, random_params
from promptmad_jax.prompts.config import TextConfig
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights.clip_config import LEGACY_EOS, ClipTextConfig
from promptmad_jax.weights.hub import resolve_file

_BATCH = 64  # phrases in one call of the tower
_WEIGHTS = "model.safetensors"
_SETTING = "text.weights"


@dataclass(frozen=True)
class TextEncoder:
    """Where text vectors come from.

    Attributes:
        fingerprint: changes whenever the vectors may change.
        encode: phrases to float32 [N, d], not normalised; loads the weights.
    """

    fingerprint: str
    encode: Callable[[tuple[str, ...]], np.ndarray]


@dataclass(frozen=True)
class _ClipFiles:
    weights: Path
    config: Path | None
    tokenizer: tuple[Path, ...]


def clip_encoder(weights: str) -> TextEncoder:
    """CLIP's text tower from a hub id or folder; nothing is loaded until it encodes.

    Raises:
        UserError: files are missing, offline or not; `encode` raises it for files that do not fit.
    """
    files = _find_files(weights)
    return TextEncoder(_hash_files(files), partial(_encode_clip, files))


def _find_files(weights: str) -> _ClipFiles:
    path = Path(weights).expanduser()
    if not path.exists():
        find = partial(resolve_file, weights, setting=_SETTING)
        return _ClipFiles(
            find(_WEIGHTS), find("config.json"), (find("vocab.json"), find("merges.txt"))
        )
    folder = path.parent if path.is_file() else path
    config = folder / "config.json"
    return _ClipFiles(
        path if path.is_file() else _find_weights(folder),
        config if config.is_file() else None,
        _find_tokenizer(folder),
    )


def _find_weights(folder: Path) -> Path:
    # A folder with nothing but the pickle goes on to the reader, which says how to convert it.
    others = (folder / "pytorch_model.safetensors", folder / "pytorch_model.bin")
    present = [path for path in (folder / _WEIGHTS, *others) if path.is_file()]
    return present[0] if present else resolve_file(str(folder), _WEIGHTS, _SETTING)


def _find_tokenizer(folder: Path) -> tuple[Path, ...]:
    for names in (("vocab.json", "merges.txt"), ("tokenizer.json",), (OPENAI_FILE,)):
        paths = tuple(folder / name for name in names)
        if all(path.is_file() for path in paths):
            return paths
    raise UserError(
        f"{folder}: holds no CLIP tokenizer; put vocab.json and merges.txt, or tokenizer.json, "
        f"of the same model beside the weights, or OpenAI's {OPENAI_FILE}"
    )


def _hash_files(files: _ClipFiles) -> str:
    digest = hashlib.sha256()
    for path in (files.weights, *((files.config,) if files.config else ()), *files.tokenizer):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"clip:{digest.hexdigest()}"


def _encode_clip(files: _ClipFiles, phrases: tuple[str, ...]) -> np.ndarray:
    tower, graph, params = load_text(files.weights, files.config)
    tokenizer = load_tokenizer(*files.tokenizer)
    # Legacy pooling is at the largest id of a text.
    end = len(tokenizer) - 1 if tower.eos_id == LEGACY_EOS else tower.eos_id
    if len(tokenizer) > tower.vocabulary or tokenizer.end != end:
        raise UserError(
            f"{files.tokenizer[0]}: {len(tokenizer)} tokens with the end token "
            f"{tokenizer.end}, where {files.weights} has {tower.vocabulary} "
            f"tokens and the end token {end}; take both from one model"
        )
    return _encode(graph, params, tokenize(tokenizer, phrases, tower.context))


def random_encoder(config: TextConfig) -> TextEncoder:
    """A seeded tower without training over single bytes, of `config`'s width, layers, heads, seed.

    Its vectors tell phrases apart (by their letters) and mean nothing.
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
    """Vectors [N, d] of ids [N, L], in batches of one size."""
    params = jax.tree.map(jnp.asarray, params)
    size = min(_BATCH, len(ids))
    padded = np.concatenate([ids, np.repeat(ids[-1:], -len(ids) % size, axis=0)])
    batches = padded.reshape(-1, size, ids.shape[1])
    vectors = [np.asarray(encode_ids(graph, params, batch)) for batch in batches]
    return np.concatenate(vectors)[: len(ids)]
