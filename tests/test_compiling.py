"""The flags that tests compile with."""

import os
import subprocess
import sys

import pytest

from tests.compiling import xla_environment


@pytest.mark.smoke
@pytest.mark.parametrize("optimizations", ["as users have them", "few"])
def test_the_installed_xla_takes_them(optimizations, monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", str(int(optimizations == "few")))
    subprocess.run(
        [sys.executable, "-c", "import jax; assert jax.device_count() == 3"],
        env=os.environ | xla_environment(3),
        check=True,
    )
