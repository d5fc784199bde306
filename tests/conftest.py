"""Eight CPU devices, strict rank promotion, full matmul precision and quick compilation."""

import os

# XLA reads these once, when jax first looks for devices.
_DEVICES = "--xla_force_host_platform_device_count=8"
if _DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}".strip()
os.environ["JAX_PLATFORMS"] = "cpu"
# Most of the suite's time is XLA compiling. .ci/run's smoke tests compile as users do.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import hypothesis  # noqa: E402
import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_enable_compilation_cache", False)

# A first example compiles, and a machine may be busy.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")

from tests.disk import file_size_limit  # noqa: E402, F401
from tests.object_store import bucket  # noqa: E402, F401

# These begin first: a worker takes a file at a time, and a long one must not be the last.
_LONG = ("test_end_to_end", "test_lowering", "test_topologies", "test_kills", "zero_shot")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not any(name in item.nodeid for name in _LONG))
