import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from promptmad_jax.commands.prepare import prepare
from promptmad_jax.data import image_cache, preprocess
from promptmad_jax.data.defect_types import source as source_training
from promptmad_jax.data.defect_types.images import load_defect_type_images, renumber
from promptmad_jax.data.defect_types.source import load_source
from promptmad_jax.data.defect_types.taxonomy import UNKNOWN
from promptmad_jax.data.image_set import load_image_set
from promptmad_jax.runtime.errors import UserError
from tests.data.image_trees import spot, write_class, write_image
from tests.data.published_trees import regions, write_btad, write_visa

SIZE = 24
VISA = {
    "pcb1": [
        ("bent", regions(1, 1)),
        ("melt,scratch", regions(2, 3, 2)),
        ("bent,melt", regions(1, 4)),
    ],
    "pcb4": [("dirt", regions(7)), ("burnt,dirt", regions(1, 7)), ("scratch", regions(2))],
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    base = tmp_path_factory.mktemp("typed")
    data = str(base / "data")
    prepare("visa", data, str(write_visa(base / "VisA", VISA)))
    source = base / "MPDD"
    write_class(source, "tubes", bad=0)
    write_class(source, "metal_plate", bad=0)
    for defect in ("major_rust", "total_rust", "scratches"):
        write_image(source / "metal_plate" / "test" / defect / "000.png", spot())
        write_image(source / "metal_plate" / "ground_truth" / defect / "000_mask.png", spot())
    prepare("mpdd", data, str(source))
    prepare("btad", data, str(write_btad(base / "btad")))
    return data


def resized(mask, size=SIZE):
    return preprocess.resize_ids(mask, size)


def test_type_of_each_pixel_from_the_folders(data_dir):
    typed = load_defect_type_images("mpdd", data_dir, "test", SIZE)
    names = typed.taxonomy.names
    assert typed.images.defect_ids is None
    assert typed.images.defect_types == (
        *("good", "major_rust", "scratches", "total_rust"),
        "good",
    )
    rust, scratch = names.index("rust") + 1, names.index("scratch") + 1
    mask = resized(spot(value=1))
    for row, k in enumerate((0, rust, scratch, rust, 0)):
        np.testing.assert_array_equal(typed.type_masks[row], mask * k)
    assert typed.type_ids == (frozenset(), {rust}, {scratch}, {rust}, frozenset())
    assert typed.types_of("metal_plate") == ("scratch", "rust")
    assert typed.types_of("tubes") == ()
    assert typed.type_masks.dtype == np.uint8


def test_type_of_each_pixel_from_class_ids(data_dir):
    typed = load_defect_type_images("visa", data_dir, "test", SIZE)
    k = {name: place for place, name in enumerate(typed.taxonomy.names, start=1)}
    wanted = {
        "pcb1/Data/Images/Anomaly/000.JPG": regions(k["bent"], k["bent"]),
        "pcb1/Data/Images/Anomaly/001.JPG": regions(k["melt"], k["scratch"], k["melt"]),
        "pcb1/Data/Images/Anomaly/002.JPG": regions(k["bent"], UNKNOWN),
        "pcb4/Data/Images/Anomaly/000.JPG": regions(UNKNOWN),
        "pcb4/Data/Images/Anomaly/001.JPG": regions(k["burnt"], UNKNOWN),
        "pcb4/Data/Images/Anomaly/002.JPG": regions(k["scratch"]),
    }
    for name, mask in wanted.items():
        row = typed.images.filenames.index(name)
        np.testing.assert_array_equal(typed.type_masks[row], resized(mask), err_msg=name)
        np.testing.assert_array_equal(typed.type_masks[row] > 0, typed.images.masks[row])
    assert typed.types_of("pcb1") == ("scratch", "melt", "bent")
    assert typed.types_of("pcb4") == ("scratch", "burnt")
    some = typed.select([3, 0])
    assert some.images.filenames == (typed.images.filenames[3], typed.images.filenames[0])
    np.testing.assert_array_equal(some.type_masks, typed.type_masks[[3, 0]])
    np.testing.assert_array_equal(some.images.defect_ids, typed.images.defect_ids[[3, 0]])
    assert some.type_ids == (typed.type_ids[3], typed.type_ids[0])


def test_binary_methods_read_no_ids(data_dir, monkeypatch):
    cache = pathlib.Path(data_dir) / "resized"
    shutil.rmtree(cache, ignore_errors=True)
    one = load_image_set("mpdd", data_dir, "test", SIZE)
    assert one.defect_ids is None
    assert not list(cache.rglob("ids.npy"))
    visa = load_image_set("visa", data_dir, "test", SIZE)
    assert isinstance(visa.defect_ids, np.memmap)
    ids = np.array(visa.defect_ids)  # The file below the map is about to shrink.
    (folder,) = (cache / "visa-1.0.0").glob(f"test-{SIZE}-*")
    (folder / "ids.npy").write_bytes(b"damaged")
    again = load_image_set("visa", data_dir, "test", SIZE)
    np.testing.assert_array_equal(again.defect_ids, ids)

    def refuse(*args):
        raise AssertionError("built again")

    monkeypatch.setattr(image_cache, "_build", refuse)
    load_image_set("visa", data_dir, "test", SIZE)


def test_fingerprint_follows_the_ids(tmp_path):
    """Labels, images and binary masks are the same; which region is which is not."""
    prints = []
    for ids in ((1, 2), (2, 1)):
        write_visa(tmp_path / "VisA", {"pcb1": [("bent,melt", regions(*ids))]})
        prepare("visa", str(tmp_path / "data"), str(tmp_path / "VisA"), overwrite=True)
        images = load_defect_type_images("visa", str(tmp_path / "data"), "test", SIZE).images
        row = images.labels.tolist().index(1)
        np.testing.assert_array_equal(images.defect_ids[row], resized(regions(*ids)))
        prints.append(images.fingerprint)
    assert prints[0] != prints[1]


def test_data_sets_without_types(data_dir):
    with pytest.raises(UserError, match="btad: its defect types are not known"):
        load_defect_type_images("btad", data_dir, "test", SIZE)
    typed = load_defect_type_images("btad", data_dir, "test", SIZE, taxonomy="folders")
    assert typed.taxonomy.names == ("ko",)
    np.testing.assert_array_equal(typed.type_masks, typed.images.masks.astype(np.uint8))


def test_types_of_visa_from_its_raw_labels(data_dir):
    typed = load_defect_type_images("visa", data_dir, "test", SIZE, "folders")
    assert typed.taxonomy.names == ("bent", "burnt", "dirt", "melt", "scratch")
    assert (typed.type_masks == UNKNOWN).sum() == (resized(regions(0, 4)) > 0).sum()


def test_renumber():
    masks = np.asarray([[0, 1, 3], [255, 3, 0]], np.uint8)
    out = renumber(masks, ("a", "b", "c"), ("c", "x", "a"))
    assert out.tolist() == [[0, 3, 1], [255, 1, 0]]
    with pytest.raises(ValueError, match="types c, which"):
        renumber(masks, ("a", "b", "c"), ("a", "b"))


def test_source_is_the_test_split_and_says_so(data_dir):
    data, fact = load_source("visa", data_dir, SIZE)
    names = [name.removeprefix("pcb1/Data/Images/") for name in data.images.filenames]
    assert names == [
        *("Anomaly/000.JPG", "Anomaly/001.JPG", "Normal/0001.JPG"),
        *("pcb4/Data/Images/Anomaly/002.JPG", "pcb4/Data/Images/Normal/0001.JPG"),
    ]
    assert data.type_masks.max() <= len(data.taxonomy.names)
    (entry,) = fact.values()
    assert list(fact) == ["trained_on_test_split"]
    assert entry["warning"].startswith("TRAINED ON THE TEST SPLIT OF visa")
    assert (entry["images"], entry["normal"], entry["defective"]) == (5, 2, 3)
    assert entry["left_out"] == {"a defect of unknown type": 3, "more than one type": 0}
    used = {name: number for name, number in entry["images_of_type"].items() if number}
    assert used == {"scratch": 2, "melt": 1, "bent": 1}
    assert entry["fingerprint"] == data.images.fingerprint


def test_single_defect_images_of_a_source(data_dir):
    data, fact = load_source("visa", data_dir, SIZE, single_defect_only=True)
    assert sum(data.images.labels) == 2
    assert max(map(len, data.type_ids)) == 1
    assert fact["trained_on_test_split"]["left_out"]["more than one type"] == 1
    some, _ = load_source("visa", data_dir, SIZE, classes=("pcb4",))
    assert some.images.class_names == ("pcb4",)


def test_an_unknown_type_without_a_pixel_is_left_out_of_a_source(data_dir, monkeypatch):
    every = load_defect_type_images("visa", data_dir, "test", SIZE)
    bare = dataclasses.replace(every, type_masks=np.zeros_like(every.type_masks))
    monkeypatch.setattr(source_training, "load_defect_type_images", lambda *_: bare)
    data, fact = load_source("visa", data_dir, SIZE)
    assert not any(UNKNOWN in ids for ids in data.type_ids)
    assert fact["trained_on_test_split"]["left_out"]["a defect of unknown type"] == 2


def test_a_source_without_defects_is_refused(data_dir):
    with pytest.raises(UserError, match=r"mpdd in .*: no defective image with a known type"):
        load_source("mpdd", data_dir, SIZE, classes=("tubes",))
