"""A disk that is full, made by the operating system itself."""

import contextlib
import resource

import pytest


@pytest.fixture
def file_size_limit():
    """`with file_size_limit(bytes):` no file of this process can grow beyond that many bytes.

    The write that would fails in the kernel with an OSError (EFBIG), as it does on a full disk.
    """

    @contextlib.contextmanager
    def limit(size):
        old, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (old, hard))

    return limit
