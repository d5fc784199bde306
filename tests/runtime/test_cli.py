"""A user's mistake is one clear line and status 2; everything else keeps its traceback."""

import os
import subprocess
import sys

import pytest

import promptmad_jax

MAIN = """
from absl import flags
from ml_collections import config_flags
from promptmad_jax.runtime import cli
from promptmad_jax.runtime.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
FAIL = flags.DEFINE_string("fail", "", "how")

def main(argv):
    if FAIL.value == "user":
        raise UserError("photo.png is not an image; remove it")
    if FAIL.value == "bug":
        raise RuntimeError("a bug")
    print("steps", CONFIG.value.train.steps)

cli.run(main)
"""
CONFIG = """
import ml_collections
from promptmad_jax.runtime.errors import UserError

def get_config(arg=""):
    if arg == "wrong":
        raise UserError("unknown configuration argument 'wrong'; there is none")
    return ml_collections.ConfigDict({"train": {"steps": 3}})
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cli")
    (directory / "main.py").write_text(MAIN)
    (directory / "config.py").write_text(CONFIG)
    return directory


def call(directory, *arguments):
    return subprocess.run(
        [sys.executable, "main.py", *arguments],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(promptmad_jax.__file__))},
        capture_output=True,
        text=True,
    )


def test_success(directory):
    done = call(directory, "--config=config.py", "--config.train.steps=7")
    assert (done.returncode, done.stdout) == (0, "steps 7\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fail=user"], "error: photo.png is not an image; remove it\n"),
        (["--config=config.py:wrong"], "error: unknown configuration argument 'wrong'"),
        (
            ["--config=config.py", "--config.train.zeps=1"],
            "error: --config.train.zeps=1: the config",
        ),
        (["--config=absent.py"], "error: config file: "),
    ],
)
def test_user_error_is_one_line(directory, arguments, message):
    done = call(directory, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_bug_keeps_its_traceback(directory):
    done = call(directory, "--fail=bug")
    assert done.returncode == 1
    assert "RuntimeError: a bug" in done.stderr
