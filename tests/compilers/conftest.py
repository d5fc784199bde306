"""Products in the precision that users get, not the suite's."""

import jax
import pytest


@pytest.fixture(autouse=True)
def precision_of_users():
    with jax.default_matmul_precision("default"):
        yield
