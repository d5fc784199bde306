"""Writes the artifact of a run."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.numpy
from jax import export as jax_export

from promptmad_jax import __version__
from promptmad_jax.config import with_dtype
from promptmad_jax.data.levels import PIXEL_RANGE
from promptmad_jax.methods.method import Exportable, Method, open_method
from promptmad_jax.runs.manifest import package_versions
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime import outputs
from promptmad_jax.runtime.console import say
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving import artifact, compiled

PLATFORMS = ("cpu", "cuda", "tpu")
_README = """\
# An exported detector

Made by promptmad_jax {version} for the classes {classes}.

    pip install promptmad_jax
    promptmad predict --export=ARTIFACT --class_name={first} --output=out PHOTOS...

ARTIFACT is this folder or the .zip file. In Python, `promptmad_jax.load("ARTIFACT")(image,
"{first}")` returns score, threshold, verdict, reason and regions.

There are programs for {platforms} and batches of {batches}, compiled when first used; images are
resized to the programs' size. A damaged file is named when the artifact is loaded. `manifest.json`
describes everything.
"""


@dataclass(frozen=True)
class Programs:
    """The programs of an artifact; see the flags of `promptmad export`.

    Attributes:
        sizes: of batches, rising.
        compiled: holds those for this machine's platform compiled too.

    Raises:
        UserError: a platform is unknown, or is not this machine's where they are to be compiled.
    """

    platforms: Sequence[str]
    sizes: tuple[int, ...]
    dtype: str
    compiled: bool

    def __post_init__(self):
        for platform in self.platforms:
            if platform not in PLATFORMS:
                raise UserError(f"--platforms={platform}: choose from {', '.join(PLATFORMS)}")
        if self.compiled and jax_export.default_export_platform() not in self.platforms:
            here = jax_export.default_export_platform()
            raise UserError(f"--compiled: this machine computes on {here}: add it to --platforms")


def export(workdir: str, output: str, programs: Programs) -> None:
    """Exports a run.

    Raises:
        UserError: there is no evaluated run, or the output holds something else.
    """
    files = Workdir(workdir)
    method = open_method(with_dtype(files.config(), programs.dtype))
    if output.lower().endswith(".zip"):
        outputs.check_file(output, "--output", (workdir,), overwrite=False)
        artifact.write_zip(Path(output), *_contents(files, method, programs))
    else:
        with outputs.claim(output, outputs.EXPORT, "--output") as folder:
            manifest, contents = _contents(files, method, programs)
            old = artifact.files_of(folder)
            with outputs.staged(folder, artifact.MANIFEST, old) as stage:
                artifact.write_folder(stage, manifest, contents)
    print(f"{output}: an artifact for {', '.join(programs.platforms)}")


def _contents(
    files: Workdir, method: Method, programs: Programs
) -> tuple[artifact.ArtifactManifest, dict[str, bytes]]:
    """The manifest and the other files by name."""
    contents = {
        name: (files.path / name).read_bytes()
        for name in (artifact.CALIBRATION, artifact.GALLERY_FILE)
    }
    exportable = method.exportable(files)
    contents[artifact.ARRAYS] = safetensors.numpy.save(exportable.arrays)
    contents |= _programs(exportable, programs)
    contents["README.md"] = _readme(exportable.class_names, programs).encode()
    manifest = artifact.ArtifactManifest(
        artifact.FORMAT,
        {"promptmad_jax": __version__} | package_versions(),
        tuple(programs.platforms),
        programs.sizes,
        programs.dtype,
        exportable.class_names,
        exportable.image_size,
        exportable.fusion,
        exportable.image_pool,
        (files.read_manifest() or {}).get(PIXEL_RANGE),
        artifact.checksums(contents),
    )
    return manifest, contents


def _programs(exportable: Exportable, programs: Programs) -> dict[str, bytes]:
    """The programs by name."""
    contents, here = {}, jax_export.default_export_platform()
    for platform, size in itertools.product(programs.platforms, programs.sizes):
        name = artifact.program_name(platform, size, programs.dtype)
        program = exportable.program(platform, size)
        contents[name] = bytes(program.serialize())
        say(f"{name}: {len(contents[name]) / 1e6:.1f} MB")
        if programs.compiled and platform == here:
            name = artifact.compiled_name(size, programs.dtype)
            contents[name] = compiled.save(program)
    return contents


def batch_sizes(given: Sequence[str]) -> tuple[int, ...]:
    if not given or not all(text.isdecimal() and 0 < int(text) <= 4096 for text in given):
        raise UserError(f"--batch_sizes={','.join(given)}: give numbers from 1 to 4096")
    return tuple(sorted({int(text) for text in given}))


def _readme(classes: Sequence[str], programs: Programs) -> str:
    return _README.format(
        version=__version__,
        classes=", ".join(classes),
        first=classes[0],
        platforms=", ".join(programs.platforms),
        batches=" and ".join(map(str, programs.sizes)),
    )
