"""Writes the artifact of a run."""

import itertools
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import safetensors.numpy
from jax import export as jax_export

from promptmad_jax import __version__
from promptmad_jax.config import relocated, with_dtype
from promptmad_jax.data.levels import PIXEL_RANGE
from promptmad_jax.evaluation.novelty import GALLERY_FILE
from promptmad_jax.methods.method import Exportable, Method, open_method
from promptmad_jax.runs.manifest import package_versions
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime import outputs
from promptmad_jax.runtime.console import say
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving import artifact_files, compiled
from promptmad_jax.serving.onnx import program as onnx_program

PLATFORMS = ("cpu", "cuda", "tpu")
_README = """\
# An exported detector of defects

It judges pictures of {classes}.
promptmad_jax {version} made it and runs it, on Python 3.11 to 3.13:

    pip install "promptmad_jax[serve]"
    promptmad predict --export=ARTIFACT --class_name={word} --output=out PHOTOS...
    promptmad serve --export=ARTIFACT        # a page to drop pictures on: http://127.0.0.1:8000

ARTIFACT is this folder or the .zip file; PHOTOS are image files of any sizes, or folders. Where pip
finds no promptmad_jax, give it the wheel or the checkout: `pip install "./CHECKOUT[serve]"`.

`out/scores.jsonl` holds a line for each picture: the verdict (normal, defective, or unknown for
what is no picture of the class), reason, score, threshold, and the regions of defects. Beside it
lie the picture with its regions, and the map of scores. `--class_name=auto` finds the class. In
Python:

    detector = promptmad_jax.load("ARTIFACT")
    result = detector(PIL.Image.open("part.png"), {text})    # .verdict, .score, .regions, .map
{onnx}
There are programs for {platforms} and batches of {batches}, compiled when first used, which takes
some seconds. A damaged file is named when the artifact is loaded. `manifest.json` describes all.
"""
_ONNX = """
Without promptmad_jax, with numpy, pillow and onnxruntime, from this folder (unpack a .zip):

    python onnx/detect.py {word} PHOTO...
"""


@dataclass(frozen=True)
class Programs:
    """The programs of an artifact; see the flags of `promptmad export`.

    Attributes:
        sizes: of batches, rising.
        compiled: holds those for this machine's platform compiled too.
        onnx: holds one in ONNX too.

    Raises:
        UserError: a platform is unknown, or is not this machine's where they are to be compiled.
    """

    platforms: Sequence[str]
    sizes: tuple[int, ...]
    dtype: str
    compiled: bool
    onnx: bool

    def __post_init__(self):
        for platform in self.platforms:
            if platform not in PLATFORMS:
                raise UserError(f"--platforms={platform}: choose from {', '.join(PLATFORMS)}")
        if self.compiled and jax_export.default_export_platform() not in self.platforms:
            here = jax_export.default_export_platform()
            raise UserError(f"--compiled: this machine computes on {here}: add it to --platforms")


def export(workdir: str, output: str, programs: Programs, weights: str = "") -> None:
    """Exports a run.

    Args:
        weights: of the backbone, if they have moved.

    Raises:
        UserError: there is no evaluated run, or the output holds something else.
    """
    files = Workdir(workdir)
    method = open_method(with_dtype(relocated(files.config(), "", weights), programs.dtype))
    if output.lower().endswith(".zip"):
        outputs.check_file(output, "--output", (workdir,), overwrite=False)
        artifact_files.write_zip(Path(output), *_contents(files, method, programs))
    else:
        with outputs.claim(output, outputs.EXPORT, "--output") as folder:
            manifest, contents = _contents(files, method, programs)
            old = artifact_files.files_of(folder)
            with outputs.staged(folder, artifact_files.MANIFEST, old) as stage:
                artifact_files.write_folder(stage, manifest, contents)
    print(f"{output}: an artifact for {', '.join(programs.platforms)}")


def _contents(
    files: Workdir, method: Method, programs: Programs
) -> tuple[artifact_files.ArtifactManifest, dict[str, bytes]]:
    """The manifest and the other files by name."""
    files.read_calibration()  # Says what is missing.
    contents = {
        name: (files.path / name).read_bytes()
        for name in (artifact_files.CALIBRATION, GALLERY_FILE)
    }
    exportable = method.exportable(files)
    contents[artifact_files.ARRAYS] = safetensors.numpy.save(exportable.arrays)
    contents |= _programs(exportable, programs)
    if programs.onnx:
        contents |= _onnx(exportable)
    contents["README.md"] = _readme(exportable.class_names, programs).encode()
    manifest = artifact_files.ArtifactManifest(
        artifact_files.FORMAT,
        {"promptmad_jax": __version__} | package_versions(),
        tuple(programs.platforms),
        programs.sizes,
        programs.dtype,
        exportable.class_names,
        exportable.image_size,
        exportable.fusion,
        exportable.image_pool,
        (files.read_manifest() or {}).get(PIXEL_RANGE),
        artifact_files.checksums(contents),
    )
    return manifest, contents


def _programs(exportable: Exportable, programs: Programs) -> dict[str, bytes]:
    """The programs by name."""
    contents, here = {}, jax_export.default_export_platform()
    for platform, size in itertools.product(programs.platforms, programs.sizes):
        name = artifact_files.program_name(platform, size, programs.dtype)
        program = exportable.program(platform, size)
        contents[name] = bytes(program.serialize())
        say(f"{name}: {len(contents[name]) / 1e6:.1f} MB")
        if programs.compiled and platform == here:
            name = compiled.file_name(size, programs.dtype)
            contents[name] = compiled.save(program)
    return contents


def _onnx(exportable: Exportable) -> dict[str, bytes]:
    """The program in ONNX, and what computes a verdict with it."""
    if exportable.fusion != "weighted":
        raise UserError(f"--onnx knows eval.fusion=weighted, and the run has {exportable.fusion}")
    function = exportable.function("onnx")
    model = onnx_program.convert(function, exportable.arrays, exportable.image_size)
    say(f"{artifact_files.ONNX}detector.onnx: {len(model) / 1e6:.1f} MB")
    sources = resources.files("promptmad_jax.serving.onnx")
    scripts = {name: (sources / name).read_bytes() for name in ("detect.py", "postprocess.py")}
    files = {"detector.onnx": model, **scripts}
    return {f"{artifact_files.ONNX}{name}": content for name, content in files.items()}


def batch_sizes(given: Sequence[str]) -> tuple[int, ...]:
    if not given or not all(text.isdecimal() and 0 < int(text) <= 4096 for text in given):
        raise UserError(f"--batch_sizes={','.join(given)}: give numbers from 1 to 4096")
    return tuple(sorted({int(text) for text in given}))


def _readme(classes: Sequence[str], programs: Programs) -> str:
    word = shlex.quote(classes[0])
    return _README.format(
        version=__version__,
        classes=", ".join(classes),
        word=word,
        text=json.dumps(classes[0], ensure_ascii=False),
        onnx=_ONNX.format(word=word) if programs.onnx else "",
        platforms=", ".join(programs.platforms),
        batches=" and ".join(map(str, programs.sizes)),
    )
