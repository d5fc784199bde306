"""The files of a CLIP model, by folder, file or hub id."""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from promptmad_jax.clip.byte_pairs import Tokenizer
from promptmad_jax.clip.config import LEGACY_EOS, ClipTextConfig
from promptmad_jax.clip.tokenizer import OPENAI_FILE, load_tokenizer
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights.hub import resolve_file

_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class ClipFiles:
    """Attributes:
    weights: the tensors. config: config.json, or None. tokenizer: what `load_tokenizer` takes.
    """

    weights: Path
    config: Path | None
    tokenizer: tuple[Path, ...]


def find_files(weights: str, setting: str) -> ClipFiles:
    """The files of a folder, of the folder that a weight file is in, or of a hub id.

    Args:
        setting: the config key that holds `weights`, for messages.

    Raises:
        UserError: files are missing, offline or not.
    """
    path = Path(weights).expanduser()
    if not path.exists():
        find = partial(resolve_file, weights, setting=setting)
        return ClipFiles(
            find(_WEIGHTS), find("config.json"), (find("vocab.json"), find("merges.txt"))
        )
    folder = path.parent if path.is_file() else path
    config = folder / "config.json"
    return ClipFiles(
        path if path.is_file() else _find_weights(folder, setting),
        config if config.is_file() else None,
        _find_tokenizer(folder),
    )


def _find_weights(folder: Path, setting: str) -> Path:
    # A folder with nothing but the pickle goes on to the reader, which says how to convert it.
    others = (folder / "pytorch_model.safetensors", folder / "pytorch_model.bin")
    present = [path for path in (folder / _WEIGHTS, *others) if path.is_file()]
    return present[0] if present else resolve_file(str(folder), _WEIGHTS, setting)


def _find_tokenizer(folder: Path) -> tuple[Path, ...]:
    for names in (("vocab.json", "merges.txt"), ("tokenizer.json",), (OPENAI_FILE,)):
        paths = tuple(folder / name for name in names)
        if all(path.is_file() for path in paths):
            return paths
    raise UserError(
        f"{folder}: holds no CLIP tokenizer; put vocab.json and merges.txt, or tokenizer.json, "
        f"of the same model beside the weights, or OpenAI's {OPENAI_FILE}"
    )


def content_hash(files: ClipFiles) -> str:
    """Changes whenever the content of a file does."""
    digest = hashlib.sha256()
    for path in (files.weights, *((files.config,) if files.config else ()), *files.tokenizer):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"clip:{digest.hexdigest()}"


def tokenizer_of(files: ClipFiles, tower: ClipTextConfig) -> Tokenizer:
    """The model's tokenizer.

    Raises:
        UserError: it cannot be read, or is not the text tower's.
    """
    tokenizer = load_tokenizer(*files.tokenizer)
    # Legacy pooling is at the largest id of a text.
    end = len(tokenizer) - 1 if tower.eos_id == LEGACY_EOS else tower.eos_id
    if len(tokenizer) > tower.vocabulary or tokenizer.end != end:
        raise UserError(
            f"{files.tokenizer[0]}: {len(tokenizer)} tokens with the end token "
            f"{tokenizer.end}, where {files.weights} has {tower.vocabulary} "
            f"tokens and the end token {end}; take both from one model"
        )
    return tokenizer
