"""Advice that can be followed: settings, flags and commands named in texts exist."""

import ast
import dataclasses
import re
import typing
from pathlib import Path

import pytest

import promptmad_jax
from promptmad_jax.config import Config
from promptmad_jax.runtime.config_file import shipped_configs

PACKAGE = Path(promptmad_jax.__file__).parent
ROOT = PACKAGE.parent
COMMANDS = {p.stem: p.read_text() for p in PACKAGE.glob("*.py") if "cli.run(main)" in p.read_text()}
# Flags that a text about flags speaks of, and those of XLA and absl.
ELSEWHERE = {
    "--signal",
    "--help",
    "--helpfull",
    "--version",
    "--flag",
    "--data",  # curl's --data-binary
    "--xla_cpu_prefer_vector_width",
}
SHARED = (PACKAGE / "runtime" / "distributed.py").read_text()


def test_every_setting_flag_command_and_file_in_a_message_exists():
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {fault}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in texts(path)
        for fault in untrue(text)
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("set train.bach_size", "setting train.bach_size"),
        ("set --config.data.dir=X", "setting data.dir"),
        ("give --workdirs", "flag --workdirs"),
        ("run `promptmad predict --source=X`", "flag --source of predict"),
        ("run `promptmad learn`", "command learn"),
        ("see docs/nothing.md", "file docs/nothing.md"),
        ("try --config=nothing.py", "file nothing.py"),
        ("`promptmad train --workdir=X`; set train.steps, see docs/your_data.md", None),
    ],
)
def test_what_the_search_finds(text, fault):
    assert untrue(text) == ([fault] if fault else [])


def texts(path):
    """Yields (line, text) of a file's strings, with {} for what f-strings put in.

    Of the docstrings only those that `--help` shows.
    """
    tree = ast.parse(path.read_text())
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in ast.walk(node) if part is not node}
        if isinstance(node, ast.Expr) and not (node is tree.body[0] and path.stem in COMMANDS):
            skipped.add(id(node.value))
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            pieces = (p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
            yield node.lineno, "".join(map(str, pieces))


def untrue(text):
    """The parts of a text that name what does not exist."""
    commands = re.findall(r"promptmad ([a-z]\w+)([^`\n;]*)", text)
    alone = re.sub(r"promptmad [a-z]\w+[^`\n;]*", "", text)
    files = re.findall(r"\b(?:docs|launch|tools)/[\w/]+\.\w+", text)
    faults = [f"setting {name}" for name in re.findall(SETTING, text) if name not in SETTINGS]
    for name, rest in commands:
        if name in COMMANDS:
            unknown = set(flags(rest)) - flags_of(name)
            faults += [f"flag {flag} of {name}" for flag in sorted(unknown)]
        elif f"`promptmad {name}" in text:
            faults.append(f"command {name}")
    faults += [f"flag {flag}" for flag in flags(alone) if flag not in ALL_FLAGS]
    faults += [f"file {name}" for name in files if not (ROOT / name).exists()]
    configs = re.findall(r"--config=([a-z]\w+\.py)", text)
    return faults + [f"file {name}" for name in configs if name not in CONFIGS]


def flags(text):
    return [flag for flag in re.findall(r"(?<![\w-])--[a-z]\w+", text) if flag not in ELSEWHERE]


def flags_of(command):
    """The flags that a command's own file defines."""
    found = set(re.findall(DEFINED, COMMANDS[command]))
    if "import cli, distributed" in COMMANDS[command]:
        found |= set(re.findall(DEFINED, SHARED))
    found |= {"config"} if "define_config_flag" in COMMANDS[command] else set()
    return {f"--{name}" for name in found} | {f"--no{name}" for name in found}


def names(cls, prefix=""):
    for name, kind in typing.get_type_hints(cls, include_extras=True).items():
        yield prefix + name
        if dataclasses.is_dataclass(kind):
            yield from names(kind, f"{prefix}{name}.")


SETTINGS = set(names(Config))
GROUPS = "|".join(sorted({name.partition(".")[0] for name in SETTINGS if "." in name}))
DEFINED = r'(?:DEFINE_\w+|define_path)\(\s*"(\w+)"'
SETTING = (
    rf"(?<![\w./-])(?:--)?(?:config\.)?((?:{GROUPS})\.(?!safetensors|npz)[a-z]\w*)(?![\w(]|\.\w)"
)
ALL_FLAGS = set().union(*map(flags_of, COMMANDS))
CONFIGS = {Path(name).name for name in shipped_configs()} | {"X.py", "NAME.py"}
