"""Configuration files: found by name or path, loaded, and overridden by `--config.KEY=VALUE`."""

import ast
import difflib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from absl import flags
from ml_collections import ConfigDict, config_flags

from promptmad_jax.runtime.console import say
from promptmad_jax.runtime.errors import UserError

# Configuration files import what they share from this package, so that copies of them work too.
_PACKAGE = "promptmad_jax.configs"

flags.disclaim_key_flags()


def define_config_flag(
    help_string: str, default: str | None = None, required: bool = False, announce: bool = False
) -> flags.FlagHolder[ConfigDict]:
    """Defines `--config=NAME.py[:ARGUMENTS]` and its overrides `--config.KEY=VALUE`.

    Args:
        announce: says that the configuration is read, which imports JAX and takes a second or two.
    """
    holder = config_flags.DEFINE_config_file("config", help_string=help_string)
    flags.FLAGS["config"].parser = _Parser(announce)
    if default is not None:
        flags.set_default(holder, default)
    if required:
        flags.mark_flag_as_required("config")
    return holder


class _Parser(flags.ArgumentParser):
    def __init__(self, announce: bool):
        self._announce = announce

    def parse(self, argument: str) -> ConfigDict:
        if self._announce:
            say(f"reading the configuration {argument}")
        return load_config(argument)

    def flag_type(self) -> str:
        return "config"


def load_config(text: str) -> ConfigDict:
    """Returns the locked configuration that `NAME.py[:ARGUMENTS]` describes.

    Raises:
        UserError: no file has this name, or the file fails.
    """
    name, colon, argument = text.partition(":")
    path = find_config(name)
    try:
        get_config = load_module(path).get_config
        return (get_config(argument) if colon else get_config()).lock()
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{_place(path, error)}: {type(error).__name__}: {reason}") from error


def find_config(name: str) -> Path:
    """Returns the file at a path or, where there is none, the shipped file of that name.

    Raises:
        UserError: there is neither; the message lists the shipped configurations.
    """
    folder = _shipped_folder()
    # As paths are given in a checkout, configs/NAME.py names a shipped file anywhere.
    shipped = folder / name.removeprefix("configs/")
    for path in (Path(name), shipped, shipped.with_suffix(".py")):
        if path.is_file():
            return path
    known = shipped_configs()
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]}?" if near else "."
    listed = "".join(f"\n  {name:<26} {line}" for name, line in known.items())
    raise UserError(f"--config={name}: no such file{hint} The shipped configurations are:{listed}")


def load_module(path: Path) -> ModuleType:
    """Runs a configuration file as a module."""
    if _PACKAGE not in sys.modules:
        _load(_PACKAGE, _shipped_folder() / "__init__.py")
    return _load(f"{path.stem}_config", path)


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _shipped_folder() -> Path:
    """The folder in an installed package, or the one at the top of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def shipped_configs() -> dict[str, str]:
    """File name and first docstring line of each shipped configuration."""
    folder = _shipped_folder()
    trees = {
        path.relative_to(folder).as_posix(): ast.parse(path.read_text())
        for path in folder.rglob("*.py")
    }
    return {
        name: ast.get_docstring(tree).partition("\n")[0]
        for name, tree in sorted(trees.items())
        if any(getattr(node, "name", "") == "get_config" for node in tree.body)
    }


def _place(path: Path, error: Exception) -> str:
    """The file, and the line in it where the error arose."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path.absolute())]
    return f"{path}, line {lines[-1]}" if lines else str(path)
