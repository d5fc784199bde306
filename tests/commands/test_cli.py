"""`promptmad COMMAND`, its help, configurations by name, and mistakes in one line."""

import os
import pathlib
import subprocess
import sys

import pytest

import promptmad_jax
from promptmad_jax.__main__ import COMMANDS
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.errors import UserError

ROOT = pathlib.Path(promptmad_jax.__file__).parents[1]
CONFIG = """
import ml_collections

def get_config(arg=""):
    config = ml_collections.ConfigDict({"train": {"steps": 3}}).lock()
    if arg:
        config.train.steeps = int(arg)
    return config
"""
MAIN = """
from promptmad_jax.runtime import cli
from promptmad_jax.runtime.config_file import define_config_flag

CONFIG = define_config_flag("what to do", required=True)

def main(argv):
    print("steps", 12 // CONFIG.value.train.steps)

cli.run(main)
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A stranger's folder with configurations of its own."""
    directory = tmp_path_factory.mktemp("cli")
    (directory / "main.py").write_text(MAIN)
    (directory / "config.py").write_text(CONFIG)
    (directory / "configs").mkdir()
    (directory / "configs" / "__init__.py").write_text("raise ImportError('not this package')\n")
    return directory


def call(directory, *arguments, root=ROOT):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )


def test_overview_and_unknown_command(directory):
    overview = call(directory, "-X", "importtime", "-m", "promptmad_jax", "--help")
    assert [line.split()[0] for line in overview.stdout.splitlines()[4:-2]] == list(COMMANDS)
    assert not any(name in overview.stderr for name in (" absl", " numpy", " jax", " ml_coll"))
    wrong = call(directory, "-m", "promptmad_jax", "trian")
    assert wrong.stderr == "error: trian: no such command; did you mean train?\n"
    assert wrong.returncode == 2
    version = call(directory, "-m", "promptmad_jax", "--version").stdout
    assert version == f"promptmad_jax {promptmad_jax.__version__}\n"


def test_help_shows_the_command_first_and_nothing_of_absl(directory):
    text = call(directory, "-m", "promptmad_jax", "train", "--help").stdout
    assert text == call(directory, "-m", "promptmad_jax.train", "--help").stdout
    parts = (
        "Trains a model",
        "    promptmad train --config=",
        "  --config=NAME.py[:ARGUMENTS]\n  ",
    )
    parts += ("(required)", "--[no]dry_run", "Joins the processes", "(default: 60)")
    places = [text.index(part) for part in parts]
    assert places == sorted(places) and "verbosity" not in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(directory, command):
    done = call(directory, "-m", "promptmad_jax", command, "--help")
    assert done.returncode == 0 and f"\n    promptmad {command} " in done.stdout


# A mistake that shows only once the configuration was read, with its override.
BAD_BATCH = ("-m", "promptmad_jax", "train", "--config=quickstart:smoke", "--compile_for=cpu:8")
BAD_BATCH += ("--config.train.batch_size=12",)


def refused(done):
    message = "error: train.batch_size=12 does not divide over 8 devices; 8 or 16 does\n"
    assert (done.returncode, done.stderr) == (2, message)


@pytest.mark.smoke
def test_a_shipped_configuration_is_found_beside_a_package_called_configs(directory):
    refused(call(directory, *BAD_BATCH))


def test_a_path_wins_over_a_shipped_name(directory, monkeypatch):
    monkeypatch.chdir(directory)
    pathlib.Path("uniad_mvtec.py").write_text(CONFIG)
    assert load_config("uniad_mvtec.py").to_dict() == {"train": {"steps": 3}}
    assert load_config("uniad_mvtec").name == "uniad_mvtec"
    assert load_config("configs/uniad_mvtec.py").name == "uniad_mvtec"


def test_an_unknown_name_lists_the_shipped_ones():
    with pytest.raises(UserError) as raised:
        load_config("quikstart.py")
    first, *listed = str(raised.value).splitlines()
    assert "--config=quikstart.py: no such file; did you mean quickstart.py?" in first
    assert any(
        line.startswith("  onenip_mvtec.py            OneNIP, the baseline") for line in listed
    )
    assert not any("common" in line for line in listed)


def test_success(directory):
    done = call(directory, "main.py", "--config=config.py", "--config.train.steps=4")
    assert (done.returncode, done.stdout, done.stderr) == (0, "steps 3\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: give --config; --help shows the flags\n"),
        (["--config=config.py", "--stops=1"], "error: Unknown command line flag 'stops'"),
        (["--config=config.py", "--config.train.steps=x"], "error: flag --config.train.steps=x"),
        (["--config=config.py", "--config.train.step=1"], "error: --config.train.step=1: the con"),
        (["--config=config.py:x"], "error: config.py, line 7: ValueError: invalid literal"),
        (["--config=config.py:1"], "error: config.py, line 7: AttributeError: "),
    ],
)
def test_a_mistake_is_one_line(directory, arguments, message):
    done = call(directory, "main.py", *arguments)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(message)


def test_bug_keeps_its_traceback(directory):
    done = call(directory, "main.py", "--config=config.py", "--config.train.steps=0")
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr


@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="this package is installed")
def test_what_is_built_holds_every_file_and_finds_its_configurations(directory, tmp_path):
    pytest.importorskip("setuptools")
    done = call(ROOT, "setup.py", "--quiet", "build_py", f"--build-lib={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["promptmad_jax"]
    wanted = {path for path in ROOT.glob("promptmad_jax/**/*") if path.is_file()}
    wanted = {path.relative_to(ROOT) for path in wanted if path.suffix != ".pyc"}
    wanted |= {"promptmad_jax" / path.relative_to(ROOT) for path in ROOT.glob("configs/**/*.py")}
    assert {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()} == wanted
    refused(call(directory, *BAD_BATCH, root=tmp_path))
