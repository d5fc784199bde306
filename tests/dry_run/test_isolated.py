"""Compilers in a process of their own."""

import os
import signal

import numpy as np
import pytest

from promptmad_jax.dry_run import isolated
from promptmad_jax.runtime.errors import UserError


def refuse(reason):
    raise UserError(reason)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def take_memory():
    np.ones(2**40, np.uint8)


def test_a_users_mistake_comes_back():
    isolated.run_isolated(print, "all is well")
    with pytest.raises(UserError, match="not so"):
        isolated.run_isolated(refuse, "not so")


@pytest.mark.parametrize(("function", "reason"), [(die, "SIGKILL"), (take_memory, "status 1")])
def test_a_process_that_dies_is_explained(function, reason):
    with pytest.raises(UserError, match=f"ended with {reason}, probably because it needs more"):
        isolated.run_isolated(function)
