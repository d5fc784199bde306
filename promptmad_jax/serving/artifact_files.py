"""The files of an exported detector: a folder, or a .zip, that runs without the model code.

    manifest.json        format, versions, classes, settings, SHA-256 of the other files
    arrays.safetensors   weights, memory and class bank, under the names of the programs' arguments
    programs/PLATFORM-bN-DTYPE.bin   StableHLO of a batch of N images, serialized by `jax.export`
    compiled/MACHINE/bN-DTYPE.bin   the same, compiled for machines of that name, if asked for
    calibration.json, normal_images.npz   as in a run
    onnx/detector.onnx, detect.py, postprocess.py   the same for machines without JAX, if asked for
    README.md            how to use it

A program takes (arrays, images uint8 [N, S, S, 3], class ids int32 [N]) and returns the maps,
float32 [N, S, S] each, and the images' descriptions, float32 [N, D].
"""

import dataclasses
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptmad_jax.runtime.files import write_bytes_atomic

MANIFEST, ARRAYS, CALIBRATION = "manifest.json", "arrays.safetensors", "calibration.json"
ONNX = "onnx/"
FORMAT = "promptmad_jax artifact 1"


@dataclass(frozen=True)
class ArtifactManifest:
    """The content of manifest.json.

    Attributes:
        versions: package to version, of what made it.
        image_size: S; images are resized to S x S, antialiased and bilinear (Pillow).
        batch_sizes: of the programs, rising.
        dtype: of the backbone's computation.
        fusion, image_pool: rule of the final map, and width of the window that makes the score.
        pixel_range: black and white of images of more than 8 bits; None if there were none.
        files: name to SHA-256.
    """

    format: str
    versions: dict[str, str]
    platforms: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    dtype: str
    class_names: tuple[str, ...]
    image_size: int
    fusion: str
    image_pool: int
    pixel_range: Any
    files: dict[str, str]


def program_name(platform: str, batch_size: int, dtype: str) -> str:
    """The file of a program."""
    return f"programs/{platform}-b{batch_size}-{dtype}.bin"


def is_artifact(path: str | os.PathLike) -> bool:
    """Returns True for a folder or .zip whose manifest.json is that of an exported detector."""
    try:
        values = json.loads(read(Path(path).expanduser(), MANIFEST))
        return str(values.get("format", "")).startswith(FORMAT.rpartition(" ")[0])
    except (OSError, ValueError, AttributeError, KeyError, zipfile.BadZipFile):
        return False


def files_of(folder: os.PathLike) -> list[str]:
    """The files that an artifact's manifest lists; none if there is no artifact."""
    if not is_artifact(folder):
        return []
    return list(json.loads(read(Path(folder), MANIFEST)).get("files", {}))


def read(path: Path, name: str) -> bytes:
    """The content of a file of an artifact, a folder or .zip."""
    if path.is_dir():
        return (path / name).read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def checksums(contents: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 by name."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def write_folder(folder: Path, manifest: ArtifactManifest, contents: Mapping[str, bytes]) -> None:
    """Writes all files into an empty folder."""
    for name, content in (contents | {MANIFEST: _json(manifest)}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def write_zip(path: Path, manifest: ArtifactManifest, contents: Mapping[str, bytes]) -> None:
    """Writes all files into one, as a whole."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (contents | {MANIFEST: _json(manifest)}).items():
            archive.writestr(name, content)
    write_bytes_atomic(path, packed.getvalue())


def _json(manifest: ArtifactManifest) -> bytes:
    text = json.dumps(dataclasses.asdict(manifest), indent=1, ensure_ascii=False)
    return (text + "\n").encode()
