"""The documents: links lead somewhere, and commands name what exists."""

import functools
import operator
import pathlib
import re
import shlex

import pytest

from promptmad_jax.config import Config
from promptmad_jax.runs.resume import FREE
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.dataclass_parser import to_dict

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "promptmad_jax"
README = ROOT / "README.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").rglob("*.md"))]
LONGEST_README = 150
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r'(?<=\]\()[^)\s]+|(?<=src=")[^"]+')
START = r"(?:[A-Z_]+=\S+ )*(?:promptmad|bash|python|pytest) "
COMMAND, LINE = re.compile(f"`({START}[^`]+)`"), re.compile(f"^{START}.*", re.MULTILINE)
PATH = re.compile(r"`((?:promptmad_jax|tests|tools|launch|docs)/[\w/.]+)`")
SETTINGS, SUFFIXES = to_dict(Config()), ("py", "json", "safetensors")
SETTING = re.compile(rf"`({'|'.join(SETTINGS)})\.(\w+)[`=]")
FLAG = re.compile(r'(?:DEFINE_\w+|define_path)\(\s*"(\w+)"|define_(config)_flag')


def prose_and_blocks(path):
    text = path.read_text(encoding="utf-8")
    return FENCE.sub("", text), FENCE.findall(text)


def anchors(path):
    """The headings as GitHub's anchors."""
    headings = re.findall(r"^#+ (.+)", prose_and_blocks(path)[0], re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def commands(path):
    """The commands of plain code blocks and of inline code, each as its words."""
    prose, blocks = prose_and_blocks(path)
    shell = "\n".join(body for language, body in blocks if not language).replace("\\\n", " ")
    inline = [" ".join(span.split()).replace("\\|", "|") for span in COMMAND.findall(prose)]
    for line in [*LINE.findall(shell), *inline]:
        words = shlex.split(line.replace("python -m promptmad_jax.", "promptmad "), comments=True)
        yield [word for word in words if not re.match(r"[A-Z_]+=", word)]


def own_flags(command):
    """The flags of a command's module, and those of the ways to join other processes."""
    sources = (PACKAGE / f"{command}.py", PACKAGE / "runtime" / "distributed.py")
    return {
        match.group(match.lastindex)
        for path in sources
        for match in FLAG.finditer(path.read_text())
    }


def check_config(value, keys):
    """Builds the configuration that `--config=VALUE` names, and looks the overridden keys up."""
    config = load_config(value)
    for key in keys:
        functools.reduce(operator.getitem, key.split("."), config)


def check_flags(command, *words):
    flags = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
    keys = {name for name in flags if name.startswith("config.")}
    assert flags.keys() - keys <= own_flags(command) | {"help"}
    if "config" in flags and "..." not in flags["config"]:
        check_config(flags["config"], [key.removeprefix("config.") for key in keys])


COMMANDS = [words for path in DOCUMENTS for words in commands(path)]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_names_what_exists(words):
    assert all((ROOT / word).exists() for word in words if re.match("(tests|tools|launch)/", word))
    if words[0] == "promptmad" and words[1] != "--help":
        check_flags(*words[1:])
    if "launch/sweep.py" in words:
        check_config(words[2].removeprefix("--config="), [])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(path):
    for link in LINK.findall(prose_and_blocks(path)[0]):
        if re.match(r"\w+://", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_settings_in_the_prose_exist(path):
    prose = prose_and_blocks(path)[0]
    assert not [name for name in PATH.findall(prose) if not (ROOT / name).exists()]
    settings = [pair for pair in SETTING.findall(prose) if pair[1] not in SUFFIXES]
    assert not [pair for pair in settings if pair[1] not in SETTINGS[pair[0]]]


def test_resuming_lists_what_may_change():
    text = (ROOT / "docs" / "resuming.md").read_text(encoding="utf-8")
    assert not [setting for setting in FREE if f"`{setting}`" not in text]


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= LONGEST_README
