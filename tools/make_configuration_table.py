"""Writes docs/configuration.md: every setting with its type, default and meaning.

    python -m tools.make_configuration_table

Types and defaults are those of the dataclasses, meanings the entries of their docstrings.
"""

import ast
import dataclasses
import inspect
import re
import typing
from pathlib import Path

from promptmad_jax.config import Config
from promptmad_jax.evaluation.compat.modes import COMPAT_MODES
from promptmad_jax.runtime.config_file import shipped_configs
from promptmad_jax.runtime.field_types import in_words

ROOT = Path(__file__).parents[1]
PATH = ROOT / "docs" / "configuration.md"
_INTRO = """\
# Configuration

*Written by `python -m tools.make_configuration_table`; do not edit by hand.*

A configuration is a Python file with a function `get_config` that returns an
`ml_collections.ConfigDict`: all settings at their defaults, then what the experiment changes.
`--config` takes the path of such a file or the name of a shipped one, found from any folder. To
make your own, copy a shipped file and edit it.

    promptmad train --config=quickstart.py:smoke,seed=3 --workdir=runs/a --config.eval.batch_size=4

**Arguments** follow the file name after a colon, separated by commas; a name alone means true.
Every shipped file takes `smoke` (the same shape in miniature: random weights, a few steps) and
`seed=N`; the table lists further ones.

**Overrides** change single settings: `--config.GROUP.KEY=VALUE`, as often as needed. A tuple is
written as in Python and quoted for the shell: `--config.data.classes="('screw','tile')"`. An
unknown name, a value of another type or out of its range, and settings that do not go together end
the command with one sentence before anything is built.

A run keeps its configuration in its working directory. When it [resumes](resuming.md), settings
that change what is learned must be the same.

## Shipped configurations

| file | experiment | arguments |
|---|---|---|
"""
_MODES = """\
## Modes of `eval.compat`

N is a number from 2 to 100,000.

| mode | figures |
|---|---|"""


def document() -> str:
    """The content of docs/configuration.md."""
    rows = [
        f"| `{name}` | {line} | {', '.join(_arguments(ROOT / 'configs' / name))} |"
        for name, line in shipped_configs().items()
    ]
    groups = {
        name: kind
        for name, kind in typing.get_type_hints(Config).items()
        if dataclasses.is_dataclass(kind)
    }
    sections = [_section("Top level", Config, "")]
    sections += [_section(f"`{name}`", kind, f"{name}.") for name, kind in groups.items()]
    modes = [f"| `{name}` | {meaning} |" for name, meaning in COMPAT_MODES.items()]
    return _INTRO + "\n".join([*rows, "", *sections, _MODES, *modes, ""])


def meanings(cls: type) -> dict[str, str]:
    """The entries below "Attributes:" in a class's docstring, by field."""
    _, _, entries = inspect.getdoc(cls).partition("Attributes:\n")
    entries = re.split(r"^ {4}(\w+): ", entries.partition("\n\n")[0], flags=re.MULTILINE)[1:]
    return {
        name: " ".join(text.split()) for name, text in zip(entries[::2], entries[1::2], strict=True)
    }


def _section(title: str, cls: type, prefix: str) -> str:
    """A heading, the first paragraphs of the docstring, and a table of the fields."""
    summary, _, _ = inspect.getdoc(cls).partition("\n\nAttributes:")
    kinds = typing.get_type_hints(cls, include_extras=True)
    lines = [
        f"## {title}",
        "",
        summary,
        "",
        "| setting | type | default | meaning |",
        "|---|---|---|---|",
    ]
    for field in dataclasses.fields(cls):
        if not dataclasses.is_dataclass(kinds[field.name]):
            kind, meaning = in_words(kinds[field.name]), meanings(cls)[field.name]
            lines.append(f"| `{prefix}{field.name}` | {kind} | `{field.default!r}` | {meaning} |")
    return "\n".join([*lines, ""])


def _arguments(path: Path) -> list[str]:
    """The arguments that a configuration file gives to `parse_arg`."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    (call,) = [call for call in calls if getattr(call.func, "attr", "") == "parse_arg"]
    return [f"`{keyword.arg}`" for keyword in call.keywords]


if __name__ == "__main__":
    PATH.write_text(document())
