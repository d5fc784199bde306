"""The files of a CLIP model, by folder, file or hub id."""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from promptmad_jax.clip.config import LEGACY_EOS, ClipTextConfig
from promptmad_jax.clip.tokenizer import OPENAI_FILE, Tokenizer, load_tokenizer
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights.hub import resolve_file

WEIGHTS = ("model.safetensors", "flax_model.msgpack")
# Of a local folder only. The reader of a pickle says how to convert it.
_CONVERTIBLE = ("pytorch_model.safetensors", "pytorch_model.bin")
_TOKENIZERS = (("vocab.json", "merges.txt"), ("tokenizer.json",), (OPENAI_FILE,))


@dataclass(frozen=True)
class ClipFiles:
    """Paths of a model's files.

    Attributes:
        weights: the tensors.
        config: config.json, or None.
        tokenizer: the arguments of `load_tokenizer`.
    """

    weights: Path
    config: Path | None
    tokenizer: tuple[Path, ...]


def find_files(weights: str, setting: str) -> ClipFiles:
    """Finds the files in a folder, in the folder of a weight file, or on the hub.

    Args:
        weights: a folder, file or hub id.
        setting: the config key that holds `weights`, for messages.

    Raises:
        UserError: files are missing, or the hub cannot be reached; see `resolve_file`.
    """
    path = Path(weights).expanduser()
    find = partial(resolve_file, weights, setting=setting)
    if not path.exists():
        return ClipFiles(find(*WEIGHTS), find("config.json"), tuple(map(find, _TOKENIZERS[0])))
    folder = path.parent if path.is_file() else path
    config = folder / "config.json"
    return ClipFiles(
        find(*WEIGHTS, *_CONVERTIBLE), config if config.is_file() else None, _tokenizer(folder)
    )


def _tokenizer(folder: Path) -> tuple[Path, ...]:
    for names in _TOKENIZERS:
        paths = tuple(folder / name for name in names)
        if all(path.is_file() for path in paths):
            return paths
    raise UserError(
        f"{folder}: holds no CLIP tokenizer; put vocab.json and merges.txt, or tokenizer.json, "
        f"of the same model beside the weights, or OpenAI's {OPENAI_FILE}"
    )


def content_hash(files: ClipFiles) -> str:
    """A hash of the content of all files."""
    digest = hashlib.sha256()
    for path in filter(None, (files.weights, files.config, *files.tokenizer)):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"clip:{digest.hexdigest()}"


def tokenizer_of(files: ClipFiles, tower: ClipTextConfig) -> Tokenizer:
    """Reads the model's tokenizer and checks that it fits the text tower.

    Raises:
        UserError: it cannot be read, or is of another model.
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
