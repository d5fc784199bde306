"""An object store in memory behind gs:// addresses, as `epath` sees one."""

import fsspec
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem


class MemoryBucket(MemoryFileSystem):
    """Answers for Google Cloud Storage; like it, it cannot append."""

    protocol = ("gcs", "gs")
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        path = path.removeprefix("gcs://").removeprefix("gs://").strip("/")
        return f"/{path}" if path else ""

    def _open(self, path, mode="rb", **options):
        if mode not in ("rb", "wb"):
            raise ValueError(f"this bucket opens files as rb or wb, not {mode}")
        return super()._open(path, mode, **options)


@pytest.fixture
def bucket():
    """An empty bucket: the `epath.Path` of gs://bucket."""
    for name in MemoryBucket.protocol:
        fsspec.register_implementation(name, MemoryBucket, clobber=True)
    MemoryBucket.store.clear()
    MemoryBucket.pseudo_dirs[:] = [""]
    return epath.Path("gs://bucket")
