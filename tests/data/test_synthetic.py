"""The synthetic data set: determinism, masks, difficulty, vocabulary, the TFDS builder."""

import io
import json
from importlib import resources

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.metrics import roc_auc_score

from promptmad_jax.data.builders import synthetic_mvtec
from promptmad_jax.data.synthetic import scenes
from promptmad_jax.runtime.errors import UserError

SIZE = 64
EVERY_DEFECT = [
    (name, defect) for name in scenes.CLASS_NAMES for defect in scenes.defect_types(name)
]


def draw(class_name, defect="good", split="test", index=0, seed=0, size=SIZE):
    return scenes.render_sample(seed, class_name, split, defect, index, size)


def test_there_are_eight_classes_with_at_least_three_defects():
    assert len(scenes.CLASS_NAMES) == 8
    assert list(scenes.CLASS_NAMES) == sorted(scenes.CLASS_NAMES)
    assert all(len(scenes.defect_types(name)) >= 3 for name in scenes.CLASS_NAMES)


@pytest.mark.parametrize("class_name", scenes.CLASS_NAMES)
def test_a_picture_depends_on_its_own_key_alone(class_name):
    image, mask = draw(class_name)
    assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
    assert mask.shape == (SIZE, SIZE) and mask.dtype == bool and not mask.any()
    np.testing.assert_array_equal(image, draw(class_name)[0])
    for other in ({"index": 1}, {"split": "train"}, {"seed": 1}):
        changed = draw(class_name, **other)[0].astype(int) - image
        assert np.abs(changed).mean() > 3, other


@pytest.mark.parametrize(("class_name", "defect"), EVERY_DEFECT)
def test_a_defect_is_visible_and_its_mask_of_a_sensible_size(class_name, defect):
    image, mask = draw(class_name, defect, size=128)
    assert 0.003 <= mask.mean() <= 0.08
    np.testing.assert_array_equal(image, draw(class_name, defect, size=128)[0])


@pytest.mark.parametrize(("class_name", "defect"), EVERY_DEFECT)
def test_the_mask_holds_the_change_and_nothing_else(class_name, defect, monkeypatch):
    pairs = []

    def recorded(intact, damaged):
        pairs.append((intact, damaged))
        return changed_pixels(intact, damaged)

    changed_pixels = scenes.changed_pixels
    monkeypatch.setattr(scenes, "changed_pixels", recorded)
    mask = draw(class_name, defect, size=128)[1]
    difference = np.abs(pairs[-1][1] - pairs[-1][0]).max(0)
    strong = difference > 0.5 * difference.max()
    assert mask[strong].mean() > 0.95
    assert difference[mask].mean() > 10 * difference[~mask].mean()
    assert (difference[mask] > scenes.VISIBLE).mean() > 0.6


def test_changed_pixels_of_a_known_square():
    intact = np.full((3, 64, 64), 0.5, np.float32)
    damaged = intact.copy()
    damaged[1, 20:30, 8:24] = 0.7  # the defect
    damaged[:, 24, 12] = 0.5  # a pore in it
    damaged[:, 30:33, 8:24] += 0.02  # a faint shadow
    damaged[:, 60, 60] = 0.9  # a speck
    expected = np.zeros((64, 64), bool)
    expected[20:30, 8:24] = True
    np.testing.assert_array_equal(scenes.changed_pixels(intact, damaged), expected)


def test_nothing_changed_is_an_empty_mask():
    picture = np.full((3, 32, 32), 0.5, np.float32)
    assert not scenes.changed_pixels(picture, picture).any()


def test_distance_to_the_mean_picture_does_not_solve_it():
    scores = [mean_picture_auroc(name) for name in scenes.CLASS_NAMES]
    assert np.mean(scores) < 0.80, dict(zip(scenes.CLASS_NAMES, scores, strict=True))
    assert np.mean(scores) > 0.55, "defects should differ from the usual picture at least somewhat"


def mean_picture_auroc(class_name):
    train = [draw(class_name, split="train", index=index)[0] for index in range(20)]
    mean = np.mean(np.asarray(train, np.float32), 0)
    types = ("good", *scenes.defect_types(class_name))
    test = [draw(class_name, defect, index=index) for defect in types for index in range(4)]
    distances = [np.abs(image - mean).mean(-1) for image, _ in test]
    return roc_auc_score(np.ravel([mask for _, mask in test]), np.ravel(distances))


def test_vocabulary_describes_every_class_and_defect():
    file = resources.files("promptmad_jax.data.synthetic") / "vocabulary.json"
    vocabulary = json.loads(file.read_text(encoding="utf-8"))
    assert tuple(vocabulary) == scenes.CLASS_NAMES
    for name, words in vocabulary.items():
        assert words["name"] and len(words["normal"]) == 3
        assert tuple(words["defects"]) == scenes.defect_types(name)
        assert all(len(phrases) == 2 for phrases in words["defects"].values())


def prepare(folder, **changes):
    arguments = {"image_size": SIZE, "train_per_class": 2, "test_good_per_class": 1}
    arguments |= {"test_per_defect": 1, "class_names": ("hex_bolt", "wood_board")}
    builder = synthetic_mvtec.SyntheticMvtec(data_dir=str(folder), **arguments | changes)
    builder.download_and_prepare(file_format="array_record")
    return builder


def raw_records(builder, split):
    skip = tfds.decode.SkipDecoding()
    source = builder.as_data_source(split=split, decoders={"image": skip, "mask": skip})
    return {record["filename"].decode(): record for record in map(dict, source)}


def test_prepared_data_set_is_read_without_arguments(tmp_path):
    prepare(tmp_path, seed=3)
    builder = tfds.builder("synthetic_mvtec", data_dir=str(tmp_path))
    train, test = raw_records(builder, "train"), raw_records(builder, "test")
    assert len(train) == 4 and len(test) == 2 * 5
    assert builder.info.features["label"].names == ["good", "defective"]
    record = test["hex_bolt/test/bent_shank/000.png"]
    assert record["class_name"] == b"hex_bolt" and record["defect_type"] == b"bent_shank"
    assert record["label"] == 1
    image, mask = draw("hex_bolt", "bent_shank", seed=3)
    np.testing.assert_array_equal(pixels(record["image"]), image)
    np.testing.assert_array_equal(pixels(record["mask"]), mask.astype(np.uint8) * 255)
    good = train["wood_board/train/good/001.png"]
    assert good["label"] == 0 and good["defect_type"] == b"good" and not pixels(good["mask"]).any()


def pixels(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)))


def test_other_counts_keep_the_bytes_of_a_picture(tmp_path):
    few = raw_records(prepare(tmp_path / "few"), "train")
    more = prepare(tmp_path / "more", train_per_class=3, class_names=("wood_board",))
    more = raw_records(more, "train")
    assert len(more) == 3
    name = "wood_board/train/good/001.png"
    assert few[name]["image"] == more[name]["image"]


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"image_size": 20}, "image_size is 20; it must be int, from 64"),
        ({"train_per_class": 0}, "train_per_class is 0"),
        ({"test_per_defect": 1.5}, "test_per_defect is 1.5"),
        ({"class_names": ("bolt",)}, "choose from bottle_cap"),
        ({"class_names": ()}, "choose from bottle_cap"),
    ],
)
def test_a_wrong_argument_is_named(tmp_path, argument, reason):
    with pytest.raises(UserError, match=reason):
        synthetic_mvtec.SyntheticMvtec(data_dir=str(tmp_path), **argument)
