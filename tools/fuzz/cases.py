"""A case: inputs bent in one to three ways, and the command that is given them."""

import dataclasses
import json
import os
import pathlib
import random
import shutil
from collections.abc import Sequence

from tools.fuzz import files
from tools.fuzz.archives import ARCHIVES
from tools.fuzz.trees import BENDS, images, write_tree


@dataclasses.dataclass(frozen=True)
class Case:
    """A command in `folder`; only `output` below it may change.

    Attributes:
        source: the folder whose images must be read or named; None where that is not asked.
        ways: what was bent.
    """

    argv: list[str]
    folder: pathlib.Path
    output: pathlib.Path
    source: pathlib.Path | None
    ways: tuple[str, ...]


# How often each kind is drawn beside the others; the last three need a trained run.
KINDS = {"tree": 10, "archive": 4, "list": 2, "convert": 1, "predict": 2, "words": 1, "settings": 1}
NEED_RUN = {"predict", "words", "settings"}


def draw(
    seed: int, number: int, home: pathlib.Path, run: pathlib.Path, kinds: Sequence[str]
) -> Case:
    """Draws a case of one of `kinds` and writes its inputs below `home`.

    Args:
        run: a trained run, for the kinds that need one; its data are in `run`/../data.
    """
    rng = random.Random(f"{seed} {number}")
    folder = home / "work"
    folder.mkdir(parents=True)
    (kind,) = rng.choices(kinds, [KINDS[kind] for kind in kinds])
    return _MAKERS[kind](rng, folder, run)


def _bent_tree(rng: random.Random, root: pathlib.Path, count: int) -> tuple[str, ...]:
    write_tree(rng, root, rng.choice((1, 2)))
    ways = tuple(rng.choice(sorted(BENDS)) for _ in range(count))
    for way in ways:
        if images(root):
            BENDS[way](rng, root)
    return ways


def _prepare(source: str, *extra: str) -> list[str]:
    dataset = "--dataset=anomaly_folder"
    return ["prepare", dataset, f"--source={source}", "--data_dir=out", *extra]


def _tree(rng: random.Random, folder: pathlib.Path, run: pathlib.Path) -> Case:
    ways = _bent_tree(rng, folder / "parts", rng.choice((1, 2, 3)))
    return Case(_prepare("parts"), folder, folder / "out", folder / "parts", ways)


def _archive(rng: random.Random, folder: pathlib.Path, run: pathlib.Path) -> Case:
    root = folder.parent / "parts"
    ways = _bent_tree(rng, root, rng.choice((0, 0, 1)))
    way = rng.choice(sorted(ARCHIVES))
    for path in sorted(root.rglob("*")):
        if not (path.is_file() or path.is_dir()):
            path.unlink()
    archive = ARCHIVES[way](rng, root, folder)
    shutil.rmtree(root)
    return Case(_prepare(archive.name), folder, folder / "out", None, (way, *ways))


def _list(rng: random.Random, folder: pathlib.Path, run: pathlib.Path) -> Case:
    ways = _bent_tree(rng, folder / "parts", rng.choice((0, 1)))
    way, name = rng.choice(sorted(files.LISTS)), rng.choice(files.LIST_NAMES)
    (folder / name).write_bytes(files.LISTS[way](files.rows_of(folder / "parts")))
    argv = _prepare(name, "--image_dir=parts")
    return Case(argv, folder, folder / "out", None, (way, name, *ways))


def _predict(rng: random.Random, folder: pathlib.Path, run: pathlib.Path) -> Case:
    ways = _bent_tree(rng, folder / "parts", rng.choice((1, 2, 3)))
    name = rng.choice(("bracket", "Bracket", "auto", "braket", ""))
    argv = ["predict", f"--workdir={run}", f"--class_name={name}", "--output=out", "parts"]
    return Case(argv, folder, folder / "out", folder / "parts", (f"class {name!r}", *ways))


def _convert(rng: random.Random, folder: pathlib.Path, run: pathlib.Path) -> Case:
    way = rng.choice(sorted(files.WEIGHTS))
    name, data = files.WEIGHTS[way]
    (folder / name).write_bytes(data)
    target = rng.choice(("promptmad", "timm", "onenip"))
    argv = ["convert", f"--input={name}", f"--to={target}", "--output=out/w.safetensors"]
    return Case(argv, folder, folder / "out", None, (way, target))


def _train(folder: pathlib.Path, run: pathlib.Path, *overrides: str) -> list[str]:
    data = f"--config.data.data_dir={run.parent / 'data'}"
    config = "--config=promptmad_folder.py:smoke"
    return ["train", config, "--workdir=out", "--config.train.steps=1", data, *overrides]


def _words(rng: random.Random, folder: pathlib.Path, run: pathlib.Path) -> Case:
    way = rng.choice(sorted(files.VOCABULARIES))
    name, data = files.VOCABULARIES[way]
    (folder / name).write_bytes(data)
    argv = _train(folder, run, f"--config.text.vocabulary={name}")
    return Case(argv, folder, folder / "out", None, (way,))


def _settings(rng: random.Random, folder: pathlib.Path, run: pathlib.Path) -> Case:
    overrides = tuple(files.setting(rng) for _ in range(rng.choice((1, 2))))
    argv = _train(folder, run, *overrides)
    return Case(argv, folder, folder / "out", None, overrides)


_MAKERS = {
    "tree": _tree,
    "archive": _archive,
    "list": _list,
    "predict": _predict,
    "convert": _convert,
    "words": _words,
    "settings": _settings,
}


def small_tree(root: pathlib.Path) -> None:
    """A faultless tree of one class, `bracket`, to train a run on."""
    rng = random.Random(0)
    write_tree(rng, root, 1)
    (name,) = (path for path in root.iterdir())
    name.rename(root / "bracket")


def lost(case: Case, said: str) -> list[str]:
    """Images of the source that were neither read nor named, by themselves or with their folder."""
    if case.source is None:
        return []
    named, left = {name.rstrip("/") for name in _named(case.output)}, []
    text = said + " ".join(named)
    for path in images(case.source):
        inside = path.relative_to(case.source)
        system = any(part.startswith(".") or part == "__MACOSX" for part in inside.parts)
        # A data set leaves out the folders around its classes.
        ends = [pathlib.Path(*inside.parts[i:]) for i in range(max(1, len(inside.parts) - 3))]
        files = {_shown(end) for end in ends}
        folders = {_shown(parent) for end in ends for parent in end.parents}
        if not (system or (files | folders) & named or any(file in text for file in files)):
            left.append(_shown(inside))
    return left


def _shown(path: pathlib.Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _named(output: pathlib.Path) -> list[str]:
    """The files of the data set's rows, the report's problems and scores.jsonl, and its reasons."""
    found = []
    for path in output.rglob("report.json"):
        for problem in json.loads(path.read_text())["problems"]:
            found += [problem["file"], problem["reason"]]
        found += _filenames(path.parent)
    for path in output.rglob("scores.jsonl"):
        rows = map(json.loads, path.read_text().splitlines())
        found += [row["file"].removeprefix("parts/") for row in rows]
    return found


def _filenames(folder: pathlib.Path) -> list[str]:
    from promptmad_jax.data.prepared import Prepared, read_contents, splits

    prepared = Prepared(folder.parent.name, folder.name, folder)
    rows = (row for split in splits(prepared) for row in read_contents(prepared, split).rows)
    return [row.filename for row in rows]
