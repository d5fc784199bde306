"""The memory's file comes back to the bit; another one, or a damaged one, is refused."""

import json

import numpy as np
import pytest

from promptmad_jax.models.reconstruction.memory import MemoryConfig
from promptmad_jax.runs.memory_file import MEMORY_FILE, read_memory, write_memory
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.training.memory import make_memory


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_memory_comes_back_and_no_other(tmp_path, dtype):
    features = np.random.default_rng(0).normal(size=(4, 2, 2, 3)).astype(np.float32)
    config, files = MemoryConfig(patches=4, pool=8, dtype=dtype), Workdir(str(tmp_path))
    assert read_memory(files) is None
    trained = make_memory(features, np.array([0, 0, 1, 1]), ("bolt", "tile"), config)
    written = write_memory(files, trained, "these images")
    files.manifest.write_text(json.dumps({"config": {}, "memory": written.digest}))
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    found = read_memory(files)
    assert found.made_from == "these images" and found.digest == written.digest
    for ours, theirs in zip(found.trained.memory, trained.memory, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(found.trained.nearest, trained.nearest)

    refused = pytest.raises(UserError, match="not be the memory that the run was made with")
    with refused:
        write_memory(files, trained, "other images")
    (tmp_path / "checkpoints" / "2").rmdir()  # not begun: nothing depends on it
    other = write_memory(files, trained, "other images")
    assert read_memory(files).digest == other.digest != written.digest
    (tmp_path / "checkpoints" / "2").mkdir()
    with refused:
        read_memory(files)
    files.manifest.unlink()
    path = tmp_path / MEMORY_FILE
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"memory\.safetensors is damaged"):
        read_memory(files)
