"""A write that fails names its file, whoever wrote."""

import errno

import numpy as np
import pytest
from PIL import Image

from promptmad_jax.runtime.files import write_text_atomic
from promptmad_jax.runtime.full_disk import refused_write
from tests.disk import file_size_limit  # noqa: F401

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: np.save(path.with_suffix(".npy"), NOISE),
        lambda path: Image.fromarray(NOISE).save(path.with_suffix(".png")),
        lambda path: path.write_text("a" * 5000),
        lambda path: write_text_atomic(path, "a" * 5000),
    ],
)
def test_the_file_is_named(tmp_path, file_size_limit, write):  # noqa: F811
    with file_size_limit(1000), pytest.raises(OSError) as raised:
        write(tmp_path / "part")
    try:
        raise RuntimeError("a library's own error") from raised.value
    except RuntimeError as error:
        message = refused_write(error)
    assert message.startswith(f"{tmp_path}/part") and "cannot be written (" in message


def test_errors_of_other_origins():
    assert refused_write(ValueError("File too large")) is None
    assert "(No space left on device; writing a/b)" in refused_write(
        RuntimeError("No space left on device; writing a/b")
    )
    assert refused_write(PermissionError(errno.EACCES, "no")) is None
    named = OSError(errno.EROFS, "Read-only file system", "a.txt")
    assert refused_write(named).startswith("a.txt cannot be written (Read-only file system)")
