import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

import promptmad_jax.data.builders  # noqa: F401  (registers the builders)
from promptmad_jax.data import cache_place, image_cache, preprocess
from promptmad_jax.data.image_set import ImageSet, load_image_set
from promptmad_jax.runtime.errors import UserError
from tests.data.image_trees import pixels, spot, write_class, write_image

ROOT = pathlib.Path(__file__).parents[2]
SIZE = 16


def make(base: pathlib.Path) -> pathlib.Path:
    tfds.disable_progress_bar()
    write_class(base / "source", "zebra", train=3)
    write_class(base / "source", "apple", train=2, good=2, bad=1)
    write_class(base / "source", "mole", train=1, good=0, bad=0)
    write_image(base / "source" / "apple" / "train" / "good" / "wide.png", pixels(5, 9, 40))
    builder = tfds.builder("anomaly_folder", data_dir=base / "data", source=str(base / "source"))
    builder.download_and_prepare()
    return base / "data"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def data_dir(prepared, tmp_path):
    """A data folder of one's own, without a cache."""
    shutil.copytree(prepared / "anomaly_folder", tmp_path / "data" / "anomaly_folder")
    return tmp_path / "data"


def load(data_dir, split="train", size=SIZE, **kwargs) -> ImageSet:
    return load_image_set("anomaly_folder", str(data_dir), split, size, **kwargs)


def cache_of(data_dir, split="train") -> pathlib.Path:
    (folder,) = (data_dir / "resized" / "anomaly_folder-1.0.0").glob(f"{split}-{SIZE}-*")
    return folder


def assert_same(one: ImageSet, other: ImageSet) -> None:
    for field in dataclasses.fields(ImageSet):
        a, b = getattr(one, field.name), getattr(other, field.name)
        np.testing.assert_array_equal(a, b)


def test_images_masks_and_names_belong_together(data_dir):
    test = load(data_dir, "test")
    assert test.filenames == (
        "apple/test/crack/000.png",
        "apple/test/good/000.png",
        "apple/test/good/001.png",
        "zebra/test/crack/000.png",
        "zebra/test/crack/001.png",
        "zebra/test/good/000.png",
    )
    assert test.class_names == ("apple", "mole", "zebra")
    assert test.class_ids.tolist() == [0, 0, 0, 2, 2, 2]
    assert test.labels.tolist() == [1, 0, 0, 1, 1, 0]
    assert test.defect_types == ("crack", "good", "good", "crack", "crack", "good")
    assert test.images.shape == (6, SIZE, SIZE, 3)
    assert test.images.dtype == np.uint8
    assert test.masks.dtype == np.bool_
    assert test.labels.dtype == test.class_ids.dtype == test.original_sizes.dtype == np.int32
    for label, mask in zip(test.labels, test.masks, strict=True):
        wanted = preprocess.resize_mask(spot() > 0, SIZE) if label else np.zeros((SIZE, SIZE))
        np.testing.assert_array_equal(mask, wanted)


def test_pixels_are_those_of_the_files(prepared):
    train = load(prepared)
    source = prepared.parent / "source"
    for filename, image, size in zip(
        train.filenames, train.images, train.original_sizes, strict=True
    ):
        decoded = preprocess.decode_image(source / filename)
        assert size.tolist() == list(decoded.shape[:2])
        np.testing.assert_array_equal(image, preprocess.resize_image(decoded, SIZE))
    assert train.original_sizes[train.filenames.index("apple/train/good/wide.png")].tolist() == [
        9,
        40,
    ]


def test_second_load_decodes_nothing(data_dir, monkeypatch):
    first = load(data_dir)

    def refuse(*args, **kwargs):
        raise AssertionError("decoded again")

    monkeypatch.setattr(image_cache, "opened", refuse)
    monkeypatch.setattr(image_cache, "read_contents", refuse)
    second = load(data_dir)
    assert_same(first, second)
    assert isinstance(second.images, np.memmap)
    with pytest.raises(AssertionError, match="decoded again"):
        load(data_dir, size=SIZE + 1)


def test_cached_load_does_not_import_tfds(data_dir):
    load(data_dir)
    code = (
        "import sys; from promptmad_jax.data.image_set import load_image_set;"
        f" load_image_set('anomaly_folder', {str(data_dir)!r}, 'train', {SIZE});"
        " print('tensorflow_datasets' in sys.modules, 'jax' in sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert output.stdout.split() == ["False", "False"]


def test_selection_of_classes(data_dir):
    whole, part = load(data_dir), load(data_dir, classes=("zebra", "mole"))
    assert part.class_names == ("mole", "zebra")
    assert part.class_ids.tolist() == [0, 1, 1, 1]
    np.testing.assert_array_equal(part.images, whole.images[3:])
    assert part.fingerprint != whole.fingerprint
    assert load(data_dir, classes=("mole", "zebra", "zebra")).fingerprint == part.fingerprint


def test_select_keeps_order_and_repeats(data_dir):
    whole = load(data_dir, "test")
    some = whole.select([4, 0, 0])
    assert len(some) == 3
    assert some.filenames == tuple(whole.filenames[i] for i in (4, 0, 0))
    assert some.defect_types == ("crack", "crack", "crack")
    np.testing.assert_array_equal(some.images, whole.images[[4, 0, 0]])
    assert some.class_names == whole.class_names
    adjacent = whole.select([2, 3])
    assert np.shares_memory(adjacent.images, whole.images)
    assert adjacent.filenames == whole.filenames[2:4]
    assert len(whole.select([])) == 0
    assert whole.select([-1]).filenames == whole.filenames[-1:]
    assert len({s.fingerprint for s in (whole, some, adjacent, whole.select([0, 4, 0]))}) == 4


def test_what_is_not_there_is_said(data_dir):
    with pytest.raises(UserError, match=r"run `promptmad prepare --dataset=nothing"):
        load_image_set("nothing", str(data_dir), "train", SIZE)
    with pytest.raises(UserError, match="not prepared in"):
        load_image_set("anomaly_folder:2.0.0", str(data_dir), "train", SIZE)
    assert len(load_image_set("anomaly_folder:1.0.0", str(data_dir), "train", SIZE)) == 7
    with pytest.raises(UserError, match="no class kiwi; it has apple, mole, zebra"):
        load(data_dir, classes=("kiwi", "apple"))
    with pytest.raises(UserError, match="the split test has no image of mole"):
        load(data_dir, "test", classes=("mole",))
    assert not len(load(data_dir, "test", classes=("mole",), required=False))
    assert not len(load(data_dir, "validation", required=False))
    with pytest.raises(UserError, match="no image in the split validation"):
        load(data_dir, "validation")
    with pytest.raises(UserError, match="local or mounted"):
        load("gs://bucket/data")


def test_empty_data_set_is_said(data_dir):
    path = data_dir / "anomaly_folder" / "1.0.0" / "dataset_info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "splits": []}))
    with pytest.raises(UserError, match="holds no image"):
        load(data_dir)
    path.write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        load(data_dir)


def test_damaged_shard_is_said(data_dir):
    (shard,) = (data_dir / "anomaly_folder" / "1.0.0").glob("*train.array_record*")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(UserError, match=r"shards of train in .* cannot be read"):
        load(data_dir)
    shard.unlink()
    with pytest.raises(UserError, match=r"shards of train in .* cannot be read"):
        load(data_dir)


@pytest.mark.parametrize("name", ["images.npy", "masks.npy", "index.json"])
def test_damaged_cache_is_built_again(data_dir, name):
    first = load(data_dir)
    images = np.array(first.images)
    path = cache_of(data_dir) / name
    path.write_bytes(path.read_bytes()[:-10])
    again = load(data_dir)
    np.testing.assert_array_equal(again.images, images)
    assert sorted(p.name for p in cache_of(data_dir).iterdir()) == [
        "images.npy",
        "index.json",
        "masks.npy",
    ]
    assert not list(cache_of(data_dir).parent.glob(".*"))


def test_changed_content_gets_a_cache_of_its_own(data_dir, tmp_path):
    old = load(data_dir)
    write_class(tmp_path / "other", "apple", train=2, good=2, bad=1)
    write_image(tmp_path / "other" / "apple" / "train" / "good" / "000.png", pixels(99))
    shutil.rmtree(data_dir / "anomaly_folder")
    source = str(tmp_path / "other")
    tfds.builder("anomaly_folder", data_dir=data_dir, source=source).download_and_prepare()
    new = load(data_dir)
    assert new.fingerprint != old.fingerprint
    assert new.class_names == ("apple",)
    np.testing.assert_array_equal(new.images[0], preprocess.resize_image(pixels(99), SIZE))


def test_fingerprint_does_not_depend_on_the_place(prepared, tmp_path):
    elsewhere = make(tmp_path)
    for split in ("train", "test"):
        assert load(prepared, split).fingerprint == load(elsewhere, split).fingerprint
    assert load(prepared, "train").fingerprint != load(prepared, "test").fingerprint


def test_cache_folder_that_cannot_be_written(data_dir):
    (data_dir / "resized").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        load(data_dir)


def test_read_only_data_are_cached_elsewhere_and_a_copied_cache_is_used(
    data_dir, tmp_path, monkeypatch, capsys
):
    load(data_dir, "test")
    for shard in data_dir.rglob("*array_record*"):
        os.utime(shard, (0, 0))  # as a copy has times of its own
    read_only = lambda folder: data_dir not in pathlib.Path(folder).parents
    for module in (cache_place, image_cache):
        monkeypatch.setattr(module, "can_write", read_only)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    cache_place._fallback.cache_clear()
    before = sorted(data_dir.rglob("*"))
    assert len(load(data_dir, "test")) == 6
    assert not list(tmp_path.glob("home/**/test-*"))
    assert len(load(data_dir, "train")) == 7
    assert len(list(tmp_path.glob("home/promptmad_jax/data/*/train-*"))) == 1
    assert "--config.data.cache_dir=FOLDER" in capsys.readouterr().err
    assert sorted(data_dir.rglob("*")) == before


def test_full_disk_leaves_nothing_behind(data_dir, monkeypatch):
    load(data_dir, "test")
    usage = shutil.disk_usage(data_dir)._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    with pytest.raises(UserError, match=r"cannot be written \(0 MB are needed"):
        load(data_dir)
    folder = data_dir / "resized" / "anomaly_folder-1.0.0"
    assert not list(folder.glob("train-*")) + list(folder.glob(".*"))


def test_leftovers_of_killed_processes_go_after_a_day(data_dir):
    load(data_dir, "test")
    folder = data_dir / "resized" / "anomaly_folder-1.0.0"
    for name in (".building-old", ".building-new"):
        (folder / name).mkdir()
    os.utime(folder / ".building-old", (0, 0))
    load(data_dir)
    assert [path.name for path in folder.glob(".*")] == [".building-new"]


def test_two_processes_at_once(data_dir):
    code = (
        "import sys, time; from promptmad_jax.data.image_set import load_image_set\n"
        "import tensorflow_datasets; print('ready', flush=True); sys.stdin.readline()\n"
        f"s = load_image_set('anomaly_folder', {str(data_dir)!r}, 'train', 64)\n"
        "print(s.fingerprint, int(s.images.astype('int64').sum()))"
    )
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline().strip() == "ready"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60)[0].splitlines()[-1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    alone = load(data_dir, size=64)
    assert outputs == [f"{alone.fingerprint} {int(alone.images.astype('int64').sum())}"] * 2
    assert not list((data_dir / "resized" / "anomaly_folder-1.0.0").glob(".*"))


def test_the_slower_of_two_takes_over_and_replaces_what_is_damaged(tmp_path):
    def folder(name, content):
        path = tmp_path / name
        path.mkdir()
        for file in ("images.npy", "masks.npy", "index.json"):
            (path / file).write_text(content)
        return path

    target = folder("target", "first")
    image_cache._move_into_place(folder("slower", "other"), target)
    assert (target / "images.npy").read_text() == "first"
    image_cache._move_into_place(folder("whole", "longer than that"), target)
    assert (target / "images.npy").read_text() == "longer than that"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slower", "target"]
