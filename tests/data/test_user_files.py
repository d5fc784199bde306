"""Which files are the user's, and how their names match, in every command."""

import json
import os
import pathlib
import unicodedata

import numpy as np
import pytest

from promptmad_jax.commands.prepare import prepare
from promptmad_jax.data.builders.check import check
from promptmad_jax.data.builders.layout import find_in_folder
from promptmad_jax.data.builders.lists import find_in_list
from promptmad_jax.data.textures import load_textures
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving.folder import find_images
from tests.data.image_trees import pixels, spot, write_class, write_image

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Gehäuse") for form in ("NFC", "NFD"))


@pytest.fixture
def mixed(tmp_path) -> pathlib.Path:
    """A folder with one image of the user's, one behind a link, and much that is none."""
    folder = tmp_path / "mixed"
    for name in ("a.png", "._a.png", ".ipynb_checkpoints/a.png", "__MACOSX/a.png", "@eaDir/a.PNG"):
        write_image(folder / name, pixels(1, 8, 8))
    write_image(tmp_path / "elsewhere" / "b.PNG", pixels(2, 8, 8))
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    (folder / "notes.txt").write_text("")
    (folder / "Thumbs.db").write_text("")
    return folder


def test_predict_and_textures_take_the_same_files(mixed, capsys):
    images = find_images([str(mixed), str(mixed / "._a.png")])
    assert [str(name) for _, name in images] == ["a", "link/b", "._a"]
    assert capsys.readouterr().err == f"2 files are no images, the first: {mixed}/notes.txt\n"
    assert load_textures(str(mixed), 8, np.zeros(0)).shape == (2, 8, 8, 3)


def test_what_is_passed_over_and_what_is_named(tmp_path, mixed):
    root = tmp_path / "source"
    write_class(root, "widget")
    good = root / "widget" / "train" / "good"
    mixed.rename(root / "mixed")
    (root / ".git").mkdir()
    (good / "Icon\r").write_text("")
    (good / "broken.png").symlink_to("nowhere")
    found = find_in_folder(root)
    assert [(p.file, p.kind) for p in found.problems] == [("mixed/", "empty_class")]
    assert "with 2 images" in found.problems[0].action
    assert good / "broken.png" in [entry.image for entry in found.entries]


@pytest.mark.parametrize("name", ["test", "train", "good", "auto", "mean"])
@pytest.mark.parametrize("alone", [True, False])
def test_classes_may_have_any_name(tmp_path, name, alone):
    names = {name} if alone else {name, "bracket"}
    for each in names:
        write_class(tmp_path, each)
    for source in (tmp_path, tmp_path / name) if alone else (tmp_path,):
        found = find_in_folder(source)
        assert (found.class_names, found.problems) == (names, [])


def test_class_names_are_the_users(tmp_path):
    for name in (COMPOSED, DECOMPOSED, "a\nb"):
        write_class(tmp_path / "source", name)
    (tmp_path / "source" / "linked").symlink_to(COMPOSED)
    found = find_in_folder(tmp_path / "source")
    assert found.class_names == {COMPOSED, DECOMPOSED, "linked"}
    assert [p.kind for p in found.problems] == ["name", "empty_class"]
    assert find_in_folder(tmp_path / "source" / "linked").class_names == {"linked"}


@pytest.mark.parametrize(
    ("folder", "masks"), [("CRACK", "crack"), (COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)]
)
def test_spellings_of_defects_and_masks_agree(tmp_path, folder, masks):
    write_class(tmp_path, "widget", bad=0)
    for stem, mask in (("A", "a_MASK"), (COMPOSED, DECOMPOSED)):
        write_image(tmp_path / "widget" / "test" / folder / f"{stem}.png", pixels(1))
        write_image(tmp_path / "widget" / "ground_truth" / masks / f"{mask}.png", spot())
    found = find_in_folder(tmp_path)
    bad = [entry for entry in found.entries if entry.label]
    assert [(entry.defect_type, len(entry.masks)) for entry in bad] == [(folder, 1)] * 2
    assert found.problems == []


def test_two_spellings_of_a_type_are_one_type_with_their_own_masks(tmp_path):
    write_class(tmp_path, "widget", bad=1)
    for name in ("000", "001"):
        write_image(tmp_path / "widget" / "test" / "Crack" / f"{name}.png", pixels(1))
    write_image(tmp_path / "widget" / "ground_truth" / "Crack" / "001_mask.png", spot())
    found = find_in_folder(tmp_path)
    masks = {e.filename: [m.parent.name for m in e.masks] for e in found.entries if e.label}
    assert masks == {
        "widget/test/Crack/000.png": [],
        "widget/test/Crack/001.png": ["Crack"],
        "widget/test/crack/000.png": ["crack"],
    }
    assert {entry.defect_type for entry in found.entries if entry.label} == {"Crack"}


def test_a_type_without_a_usable_image_is_said(tmp_path):
    write_class(tmp_path, "widget", bad=2)
    (tmp_path / "widget" / "ground_truth").rename(tmp_path / "widget" / "masks")
    problems = check(find_in_folder(tmp_path), lambda results, count: results).problems
    said = [(p.file, p.reason) for p in problems if p.kind == "empty_type"]
    reason = "no usable defective image of the type crack of 2; the first fault: "
    assert said == [("widget/crack", f"{reason}widget/test/crack/000.png: no mask for a defect")]


@pytest.mark.parametrize("place", ["", "data", "out/data", "widget/data"])
def test_the_data_folder_may_lie_in_the_source(tmp_path, place, capsys):
    write_class(tmp_path, "widget")
    for _ in range(2):
        folder = prepare("anomaly_folder", str(tmp_path / place), str(tmp_path))
        cache = folder.parents[1] / "resized" / "anomaly_folder-1.0.0"
        cache.mkdir(parents=True, exist_ok=True)
    out = capsys.readouterr().out
    assert "nothing to do" in out
    assert "0 problems" in out


def rows(tree: pathlib.Path, split: str) -> list[dict]:
    files = sorted((tree / "widget" / split).rglob("*.png"))
    return [
        {"filename": str(f.relative_to(tree)), "clsname": "widget", "label": int("crack" in str(f))}
        for f in files
    ]


@pytest.mark.parametrize(
    ("name", "encoding", "end"),
    [
        ("latest_{}.json", "utf-8-sig", "\n"),
        ("trains_{}.JSON", "utf-16", "\r\n"),
        ("my{}List2.jsonl", "utf-8", "\r"),
    ],
)
def test_the_last_word_of_a_lists_name_is_its_split(tmp_path, tree, name, encoding, end):
    for word in ("train", "test"):
        path = tmp_path / name.format(word.title() if name.startswith("my") else word)
        path.write_bytes(end.join(map(json.dumps, rows(tree, word))).encode(encoding))
    found = find_in_list(path, str(tree))
    assert [entry.split for entry in found.entries].count("train") == 2
    assert (len(found.entries), found.problems) == (5, [])


def test_defects_never_become_training(tmp_path, tree):
    test = rows(tree, "test")
    wrong = {**test[0], "label": 0}
    both = [json.dumps(row) for row in [*rows(tree, "train"), wrong, test[1]]]
    (tmp_path / "train.json").write_text("\n".join(both))
    (tmp_path / "test.json").write_text("\n".join(map(json.dumps, test)))
    found = find_in_list(tmp_path / "train.json", str(tree))
    train = [entry.filename for entry in found.entries if entry.split == "train"]
    assert train == [row["filename"] for row in rows(tree, "train")]
    assert {p.file: p.kind for p in found.problems} == {
        test[0]["filename"]: "leak",
        test[1]["filename"]: "bad_entry",
    }


@pytest.mark.parametrize("name", ["a/b", "a\0b", "..", "\ud800"])
def test_impossible_names_in_lists(tmp_path, tree, name):
    row = {**rows(tree, "train")[0], "clsname": name}
    (tmp_path / "contest.json").write_text(json.dumps(row))
    with pytest.raises(UserError, match=r"contest\.json: no usable entry; contest\.json: line 1"):
        find_in_list(tmp_path / "contest.json", str(tree))
