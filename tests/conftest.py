"""Eight CPU devices, strict rank promotion, full matmul precision and quick compilation."""

import os
import pathlib
import sys

# At the end, so that an installed package is found before the checkout's.
sys.path.append(str(pathlib.Path(__file__).parents[1]))

from tests.compiling import xla_environment

os.environ |= xla_environment(8) | {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}

import hypothesis
import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_enable_compilation_cache", False)

# A first example compiles, and a machine may be busy.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")

from tests.disk import file_size_limit  # noqa: E402, F401
from tests.object_store import bucket  # noqa: E402, F401
from tests.reporting.browser import browser  # noqa: E402, F401

# These begin first: a worker takes a file at a time, and a long one must not be the last.
_LONG = (
    "test_end_to_end",
    "test_lowering",
    "test_topologies",
    "test_kills",
    "zero_shot",
    "test_step",
    "test_fuzz",
    "test_promptmad",
    "test_enroll",
    "benchmarking",
    "test_memory",
    "test_accelerators",
    "tests/tools",
    "reporting",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not any(name in item.nodeid for name in _LONG))
