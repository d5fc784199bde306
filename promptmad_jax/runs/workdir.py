"""The files of a run's working directory, by name.

checkpoints/       training states and the configuration that made them
bank.npz           class names, prompt images, text tokens and moments of features, for inference
memory.safetensors the memory of normal patches; see memory_file.py
enrolled/          images that classes were given without training; see enrolled.py
calibration.json   constants and thresholds read off normal images, with their step
normal_images.npz  descriptions of these images
metrics.jsonl, tensorboard/, manifest.json, metrics.json, report/index.html
"""

import hashlib
import io
import json
import zipfile
import zlib
from typing import Any

import numpy as np
from etils import epath

from promptmad_jax.config import Config, parse
from promptmad_jax.data.levels import PIXEL_RANGE, Levels
from promptmad_jax.evaluation.constants import Calibration, fits, from_json, to_json
from promptmad_jax.evaluation.novelty import GALLERY_FILE, Gallery, gallery_bytes, gallery_of
from promptmad_jax.prompts.embeddings import TextTokens
from promptmad_jax.runs.change import finish_change
from promptmad_jax.runs.stored import MANIFEST_FILE, read_manifest
from promptmad_jax.runtime.checkpoint import CONFIG_FILE, Checkpoints
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import write_bytes_atomic

BANK_FILE, CALIBRATION_FILE = "bank.npz", "calibration.json"

# Settings of older runs that changed speed alone, and that the platform now decides.
_RETIRED = (("reconstructor", "attention_pass"), ("segmentor", "fine_pass"))


class Workdir:
    """Paths of a working directory, local or `gs://`, and typed access to its small files."""

    def __init__(self, path: epath.PathLike):
        self.path = epath.Path(path)

    @property
    def manifest(self) -> epath.Path:
        return self.path / MANIFEST_FILE

    @property
    def log(self) -> epath.Path:
        return self.path / "metrics.jsonl"

    def checkpoints(self, keep: int, keep_every: int = 0) -> Checkpoints:
        return Checkpoints(self.path / "checkpoints", keep, keep_every)

    def config(self) -> Config:
        """The configuration that the run was trained with.

        Raises:
            UserError: there is no run here.
        """
        finish_change(self.path)
        path = self.path / "checkpoints" / CONFIG_FILE
        if not path.exists():
            raise UserError(
                f"{self.path} holds no trained model; train one there with "
                f"promptmad train --config=... --workdir={self.path}"
            )
        try:
            values = json.loads(path.read_text())
            for group, key in _RETIRED:
                values.get(group, {}).pop(key, None)
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged ({error}); restore it or train again") from error
        return parse(values)

    def read_manifest(self) -> dict[str, Any] | None:
        """The run's manifest; None where the file is missing.

        Raises:
            UserError: it is damaged.
        """
        return read_manifest(self.path) if self.manifest.exists() else None

    def levels(self) -> Levels | None:
        """The black and the white of images with more than 8 bits; None if none were trained on."""
        manifest = self.read_manifest() or {}
        return Levels.from_json(manifest.get(PIXEL_RANGE))

    def write_bank(self, *parts: Any) -> None:
        """Writes bank.npz; see `bank_bytes`."""
        write_bytes_atomic(self.path / BANK_FILE, bank_bytes(*parts))

    def read_bank(
        self,
    ) -> tuple[tuple[str, ...], np.ndarray, TextTokens | None, np.ndarray | None]:
        """Class names, prompt images, text tokens and moments of features of the run.

        Raises:
            UserError: the file is missing or damaged.
        """
        path = self.path / BANK_FILE
        way_out = f"run `promptmad train` again on {self.path}, which writes it"
        if not path.exists():
            raise UserError(f"{path} is missing: {way_out}")
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                names, prompts = tuple(map(str, arrays["class_names"])), arrays["prompts"]
                moments = arrays.get("feature_moments", None)
                if "text_tokens" not in arrays:
                    return names, prompts, None, moments
                words, sources = json.loads(str(arrays["text_words"]))
                tokens, mask = arrays["text_tokens"], arrays["text_mask"]
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path} is damaged ({error}): {way_out}") from error
        text = TextTokens(tokens, mask, tuple(map(tuple, words)), tuple(sources))
        return names, prompts, text, moments

    def write_calibration(self, calibration: Calibration) -> None:
        """Writes calibration.json and normal_images.npz."""
        for name, content in calibration_contents(calibration).items():
            write_bytes_atomic(self.path / name, content)

    def _read_gallery(self, digest: str) -> Gallery:
        path = self.path / GALLERY_FILE
        content = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(content).hexdigest() != digest:
            raise UserError(
                f"{path} is missing or does not belong to calibration.json beside it; write both "
                f"with `promptmad evaluate --workdir={self.path}`"
            )
        return gallery_of(content)

    def read_calibration(self) -> Calibration:
        """The constants of the newest evaluation.

        Raises:
            UserError: the file is missing, damaged, or of an older version.
        """
        finish_change(self.path)
        path = self.path / CALIBRATION_FILE
        way_out = f"write it with `promptmad evaluate --workdir={self.path}`"
        if not path.exists():
            raise UserError(
                f"{path} is missing: no evaluation has finished. Let training end, or {way_out}"
            )
        try:
            values = json.loads(path.read_text())
            if "normal_images" not in values or not fits(values, self._fusion()):
                raise UserError(f"{path} is of an older version; {way_out}")
            return from_json(values, self._read_gallery(values["normal_images"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is damaged ({error!r}); {way_out}") from error

    def _fusion(self) -> str:
        path = self.path / "checkpoints" / CONFIG_FILE
        return self.config().eval.fusion if path.exists() else ""


def bank_bytes(
    class_names: tuple[str, ...],
    prompts: np.ndarray,
    text: TextTokens | None,
    moments: np.ndarray | None = None,
) -> bytes:
    """The content of bank.npz; prompts uint8 [K, S, S, 3], moments of features as in `Frozen`."""
    arrays: dict[str, Any] = {"class_names": np.array(class_names), "prompts": prompts}
    if text is not None:
        arrays |= {
            "text_tokens": text.tokens,
            "text_mask": text.mask,
            "text_words": np.array(json.dumps([text.names, text.sources])),
        }
    if moments is not None:
        arrays["feature_moments"] = np.asarray(moments)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def calibration_contents(calibration: Calibration) -> dict[str, bytes]:
    """The contents of normal_images.npz and calibration.json by their names."""
    gallery = gallery_bytes(calibration.gallery)
    values = to_json(calibration) | {"normal_images": hashlib.sha256(gallery).hexdigest()}
    # The gallery first: constants without theirs are noticed.
    return {GALLERY_FILE: gallery, CALIBRATION_FILE: (json.dumps(values, indent=2) + "\n").encode()}
