"""Phrases to vectors: from a file of vectors, or from an encoder through a cache on disk."""

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
from absl import logging
from etils import epath

from promptmad_jax.data.cache_place import cache_path
from promptmad_jax.prompts.config import TextConfig
from promptmad_jax.prompts.encoders import TextEncoder, clip_encoder, random_encoder
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import is_local, write_bytes_atomic
from promptmad_jax.weights.files import read_tensors

_FORMAT = 3  # raised whenever the code gives other vectors for the same inputs
_LISTED = 3


def phrase_vectors(
    config: TextConfig, phrases: tuple[str, ...], cache_dir: epath.PathLike | None
) -> np.ndarray:
    """Encodes phrases, or looks their vectors up; float32 [N, d], not normalised.

    Args:
        config: `source` and what belongs to it.
        phrases: N distinct phrases.
        cache_dir: keeps encoded vectors, by the content of weights and phrases; None keeps none.

    Raises:
        UserError: weights or a vectors file cannot be used, or a phrase has no vector.
    """
    if config.source == "vectors":
        return read_vectors(Path(config.weights).expanduser(), phrases)
    encoder = clip_encoder(config.weights) if config.source == "clip" else random_encoder(config)
    if cache_dir is None:
        return encoder.encode(phrases)
    return _cached(encoder, phrases, epath.Path(cache_dir))


def read_vectors(path: Path, phrases: tuple[str, ...]) -> np.ndarray:
    """Reads the vectors of `phrases` from an .npz file with `phrases` [M] and `vectors` [M, d].

    Raises:
        UserError: the file is absent or malformed, or lacks a phrase.
    """
    known, vectors = _read_arrays(path)
    rows = {phrase: row for row, phrase in enumerate(known.tolist())}
    missing = [phrase for phrase in phrases if phrase not in rows]
    if missing:
        more = "; ..." if len(missing) > _LISTED else ""
        raise UserError(
            f"{path}: has no vector for {len(missing)} of {len(phrases)} phrases: "
            f"{'; '.join(map(repr, missing[:_LISTED]))}{more}. Add their vectors to "
            "the file, or use text.source=clip"
        )
    chosen = vectors[[rows[phrase] for phrase in phrases]].astype(np.float32)
    bad = ~np.isfinite(chosen).all(1) | ~chosen.any(1)
    if bad.any():
        raise UserError(
            f"{path}: the vector of {phrases[int(np.argmax(bad))]!r} is zero or not "
            "finite; compute it again"
        )
    return chosen


def _read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    form = "it needs `phrases` (M strings) and `vectors` (M x d numbers)"
    if path.suffix != ".npz":
        raise UserError(f"text.weights={path}: text.source=vectors needs an .npz file; {form}")
    arrays = read_tensors(path)
    absent = [name for name in ("phrases", "vectors") if name not in arrays]
    if absent:
        raise UserError(f"{path}: has no array {' and no '.join(absent)}; {form}")
    phrases, vectors = arrays["phrases"], arrays["vectors"]
    kinds = (phrases.ndim, phrases.dtype.kind, vectors.ndim, vectors.dtype.kind)
    if kinds != (1, "U", 2, "f") or len(phrases) != len(vectors):
        raise UserError(
            f"{path}: `phrases` is {phrases.dtype} {phrases.shape}, `vectors` is "
            f"{vectors.dtype} {vectors.shape}; {form}"
        )
    return phrases, vectors


def _cached(encoder: TextEncoder, phrases: tuple[str, ...], folder: epath.Path) -> np.ndarray:
    content = "\n".join((str(_FORMAT), encoder.fingerprint, *map(repr, phrases)))
    name = f"text-{hashlib.sha256(content.encode()).hexdigest()[:32]}.npz"
    path = epath.Path(cache_path(folder, name)) if is_local(folder) else folder / name
    if path.exists():
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                if tuple(file["phrases"].tolist()) == phrases:
                    return file["vectors"]
            reason = "its phrases differ"
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            reason = str(error)
        logging.warning("%s: a damaged cache of text vectors (%s), computed again", path, reason)
    vectors = encoder.encode(phrases)
    buffer = io.BytesIO()
    np.savez(buffer, phrases=np.array(phrases), vectors=vectors)
    write_bytes_atomic(path, buffer.getvalue())
    return vectors
