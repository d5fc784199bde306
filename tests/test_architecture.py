"""The shape of the package: what imports what, what an import costs, what is shipped."""

import ast
import pathlib
import subprocess
import sys

import pytest

from promptmad_jax.__main__ import COMMANDS

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "promptmad_jax"

# From below: a folder imports only what stands before it here, or itself. Entry points are free.
ORDER = (
    "runtime",
    "weights",
    "data",
    "clip",
    "prompts",
    "models",
    "losses",
    "training",
    "evaluation",
    "config",
    "runs",
    "reporting",
    "serving",
    "methods",
    "dry_run",
    "benchmarking",
    "commands",
)
RANK = {name: rank for rank, name in enumerate(ORDER)}
HEAVY = ("jax", "flax", "torch", "tensorflow", "tensorflow_datasets", "transformers", "matplotlib")
DATA_SUFFIXES = {".pbtxt", ".json", ".html", ".css", ".js", ".npz", ".typed"}
IMPORT_SECONDS = 1.0


def sources(directory=PACKAGE):
    return sorted(directory.rglob("*.py"))


def imported_modules(path, source):
    """The absolute names of the promptmad_jax modules that `source` at `path` imports."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def layer_faults(path, source):
    """Imports of `source` that run against the order of the folders."""
    folder = path.relative_to(PACKAGE).parts[0]
    folder = folder.removesuffix(".py")
    if folder not in RANK:
        return []
    faults = []
    for module in imported_modules(path, source):
        parts = module.split(".")
        if parts[0] != "promptmad_jax" or parts[1] in ("__version__", folder):
            continue
        if parts[1] not in RANK or RANK[parts[1]] >= RANK[folder]:
            faults.append(f"{path.relative_to(ROOT)} imports {module}")
    return faults


def test_every_folder_has_a_rank():
    folders = {path.name for path in PACKAGE.iterdir() if any(path.glob("*.py"))}
    assert folders == RANK.keys() - {"config"}


def test_the_root_holds_entry_points_and_the_configuration_alone():
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    assert modules == {*COMMANDS, "__init__", "__main__", "config"}


def test_folders_import_only_what_stands_before_them():
    faults = [fault for path in sources() for fault in layer_faults(path, path.read_text())]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("module", "source", "count"),
    [
        ("data/x.py", "from promptmad_jax.runtime import errors", 0),
        ("data/x.py", "from promptmad_jax.data import pipeline", 0),
        ("data/x.py", "from promptmad_jax import models", 1),
        ("data/x.py", "def f():\n  import promptmad_jax.models.reconstruction.onenip", 1),
        ("data/builders/x.py", "from ...training import loop", 1),
        ("data/builders/x.py", "from .. import image_set", 0),
        ("runtime/x.py", "from promptmad_jax.weights import keys", 1),
        ("serving/x.py", "from promptmad_jax import train", 1),
        ("train.py", "from promptmad_jax.serving import predictor", 0),
    ],
)
def test_layer_check_sees_every_form_of_import(module, source, count):
    assert len(layer_faults(PACKAGE / module, source)) == count


def parameters(function):
    """The number of parameters, without self or cls."""
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    starred = (arguments.vararg, arguments.kwarg)
    return len(names[names[:1] in (["self"], ["cls"]) :]) + sum(a is not None for a in starred)


def test_no_function_has_more_than_eight_parameters():
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, functions) and parameters(node) > 8
    ]
    assert not long, "\n".join(long)


def asks_for_the_model(node):
    """Compares or matches an attribute called `model`."""
    if isinstance(node, ast.Compare):
        compared = (node.left, *node.comparators)
    elif isinstance(node, ast.Match):
        compared = (node.subject,)
    else:
        return False
    return any(isinstance(part, ast.Attribute) and part.attr == "model" for part in compared)


def test_a_kind_of_detector_is_told_apart_in_methods_alone():
    faults = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources()
        if path.relative_to(PACKAGE).parts[0] != "methods"
        for node in ast.walk(ast.parse(path.read_text()))
        if asks_for_the_model(node)
    ]
    assert not faults, "\n".join(faults)
    for code in ('config.model == "uniad"', "match config.model:\n  case x: pass"):
        assert any(map(asks_for_the_model, ast.walk(ast.parse(code))))


def test_no_file_is_called_utils():
    assert not [path for path in ROOT.rglob("utils.py") if ".venv" not in str(path)]


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for root in (PACKAGE, ROOT / "configs") for path in sources(root)}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_every_data_file_is_of_a_kind_that_setup_ships():
    others = {
        path.relative_to(ROOT)
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"} | DATA_SUFFIXES
    }
    assert not others


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.smoke
def test_import_loads_nothing_heavy():
    loaded = run_python("import sys, promptmad_jax; print(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded)


def test_text_is_read_without_a_tokenizer():
    """A trained run keeps its text tokens, so that predict does not wait for transformers."""
    loaded = run_python("import sys, promptmad_jax.prompts.embeddings; print(*sys.modules)").split()
    assert not {"torch", "transformers", "tokenizers", "huggingface_hub"} & set(loaded)


def test_import_takes_under_a_second():
    # User CPU time: a busy machine must not fail the test.
    code = "import os, promptmad_jax; print(os.times().user)"
    times = sorted(float(run_python(code)) for _ in range(3))
    assert times[1] < IMPORT_SECONDS
