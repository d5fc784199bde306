"""Exported programs, compiled for this machine or for another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax import export

from promptmad_jax.serving import artifact, artifact_files, compiled


def scale(arrays, images, class_ids):
    maps = jnp.mean(images, -1) * arrays["scale"][class_ids][:, None, None]
    return {"memory": maps}, jnp.mean(maps, 1)


@pytest.mark.parametrize("here", [True, False])
def test_programs_compiled_before(tmp_path, here, monkeypatch, capsys):
    shape, arrays = jax.ShapeDtypeStruct, {"scale": np.arange(1, 4, dtype=np.float32)}
    shapes = shape((2, 4, 4, 3), jnp.uint8), shape((2,), jnp.int32)
    program = export.export(jax.jit(scale), platforms=("cpu",))(arrays, *shapes)
    contents = {
        artifact_files.ARRAYS: safetensors.numpy.save(arrays),
        artifact_files.program_name("cpu", 2, "float32"): bytes(program.serialize()),
        compiled.file_name(2, "float32"): compiled.save(program),
    }
    manifest = artifact_files.ArtifactManifest(
        artifact_files.FORMAT, {"jax": jax.__version__}, ("cpu",), (2,), "float32",
        ("a", "b", "c"), 4, "memory", 1, None, artifact_files.checksums(contents),
    )  # fmt: skip
    artifact_files.write_folder(tmp_path, manifest, contents)
    if here:
        monkeypatch.setattr(compiled, "compile_program", None)
    else:
        monkeypatch.setattr(compiled, "machine", lambda: "abacus")
    images = np.full((3, 4, 4, 3), 10, np.uint8)
    maker = artifact.ExportedMaps(artifact.Artifact(tmp_path))
    maps, descriptions = maker.described_maps(images, np.array([0, 1, 2]))
    assert maps["memory"][:, 0, 0].tolist() == [10, 20, 30] and descriptions.shape == (3, 4)
    assert ("and this machine is abacus" in capsys.readouterr().err) is not here
