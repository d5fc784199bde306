"""The choice of images, their colour scale, and their explanations."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from promptmad_jax.evaluation.metrics.metrics import image_scores
from promptmad_jax.evaluation.thresholds import Thresholds
from promptmad_jax.reporting.diffusion_strip import make_strip, most_changed, step_source
from promptmad_jax.reporting.explanations import Window, highest_window, make_explainer
from promptmad_jax.reporting.gallery import (
    HIGHEST,
    LOWEST,
    NORMAL,
    choose,
    colour_scale,
    make_gallery,
    verdict,
)
from promptmad_jax.reporting.pages.thumbnails import picture_row
from tests.reporting.report_cases import SIZE, fake_steps, make_class, with_final

GROUPS = LOWEST, NORMAL, HIGHEST


def gallery_of(class_maps, pool=4):
    return make_gallery(class_maps, image_scores(class_maps.maps["final"], pool), pool)


def test_choice_of_images():
    scores = np.array([0.1, 0.9, 0.5, 0.3, 0.8, 0.2])
    labels = np.array([1, 1, 1, 0, 0, 0])
    chosen = choose(scores, labels, 2)
    assert chosen == {LOWEST: [0, 2], HIGHEST: [1], NORMAL: [4, 3]}
    assert choose(scores[3:], labels[3:], 2)[LOWEST] == []
    assert choose(scores[:1], labels[:1], 2) == {LOWEST: [0], HIGHEST: [], NORMAL: []}


def test_verdicts_name_alarms_only_above_the_threshold():
    judged = {group: [verdict(group, score, 4.845) for score in (2.988, 5)] for group in GROUPS}
    assert judged[NORMAL] == ["called normal", "false alarm"]
    assert judged[LOWEST] == judged[HIGHEST] == ["missed", "found"]


def test_scale_belongs_to_the_class():
    class_maps = make_class()
    maps = class_maps.maps["final"]
    low, high = colour_scale(class_maps, "final")
    normal = maps[class_maps.labels == 0]
    assert low == pytest.approx(np.median(normal), abs=1e-6)
    on_defects = np.quantile(maps[class_maps.masks], 0.99)
    assert high == pytest.approx(max(on_defects, np.quantile(normal, 0.999)), abs=1e-6)
    assert gallery_of(class_maps).scales["final"] == (low, high)


def test_the_final_map_is_coloured_from_the_threshold_up():
    class_maps = dataclasses.replace(flat_case(), thresholds=Thresholds(0.5, 0.5, 9, region=0.6))
    gallery = gallery_of(class_maps)
    assert gallery.scales["final"] == pytest.approx((0, 1.2))
    [alarm, *_] = gallery.groups[HIGHEST]
    index = class_maps.filenames.index(alarm.filename)
    marked = (alarm.pictures["final"] != class_maps.images[index]).any(-1)
    inside = class_maps.masks[index]
    assert marked[inside].all() and not marked[~ndimage.binary_dilation(inside, iterations=4)].any()
    for example in gallery.groups[NORMAL]:
        np.testing.assert_array_equal(example.pictures["final"], example.pictures["image"])


@pytest.mark.parametrize("value", [0.0, 0.25, 1e6])
def test_constant_maps_still_have_a_scale(value):
    class_maps = with_final(make_class(keys=()), np.full((11, SIZE, SIZE), value))
    low, high = colour_scale(class_maps, "final")
    assert high > low
    assert len(gallery_of(class_maps).groups[HIGHEST]) == 3


def test_scale_without_normal_images():
    class_maps = make_class(normal=0)
    low, _ = colour_scale(class_maps, "final")
    assert low == pytest.approx(np.median(class_maps.maps["final"][~class_maps.masks]), abs=1e-6)


def test_highest_window_is_where_the_score_comes_from():
    maps = np.random.default_rng(0).random((6, 30, 20))
    for values, score in zip(maps, image_scores(maps, 7), strict=True):
        assert highest_window(values, 7).crop(values).mean() == pytest.approx(score)
    assert highest_window(np.eye(4), 4) == Window(0, 0, 4)


def flat_case():
    """Five normal images at 0, and four defective ones at 1 on the defect."""
    class_maps = make_class(normal=5, defective=4)
    names = ("final", "reconstruction", "coarse")
    maps = {name: class_maps.masks.astype(np.float32) for name in names}
    return dataclasses.replace(class_maps, maps=maps)


def explain(class_maps, index, pool=4):
    scores = image_scores(class_maps.maps["final"], pool)
    window = highest_window(class_maps.maps["final"][index], pool)
    return make_explainer(class_maps, scores).explain(index, window)


def test_explanation_of_a_hit_and_a_miss():
    class_maps = flat_case()
    assert explain(class_maps, 6) == "scores above all 5 normal images; the map peaks on the defect"
    final = class_maps.maps["final"]
    final[:3], final[6] = 0.8, 0.5
    final[6, 30:, 30:] = 0.7
    class_maps.maps["coarse"][6] = 0
    assert explain(class_maps, 6) == (
        "scores below 3 of the 5 normal images; the map peaks outside the defect; "
        "reconstruction responds to it, coarse does not"
    )
    class_maps.maps["reconstruction"][6] = 0
    assert explain(class_maps, 6).endswith("; no map responds to the defect")


def test_explanation_of_a_false_alarm():
    class_maps = flat_case()
    class_maps.maps["final"][0, :6, :6] = 2.0
    class_maps.maps["coarse"][0, :6, :6] = 2.0
    assert explain(class_maps, 0) == (
        "scores above all 4 defective images; raised by coarse; "
        "the map peaks at the edge of the image"
    )


def test_many_images_are_given_in_percent():
    class_maps = make_class(normal=25, defective=1, keys=())
    final = np.zeros_like(class_maps.maps["final"])
    final[:23] = 1.0
    assert explain(with_final(class_maps, final), 25).startswith("scores below 92 % of the normal")


def test_explanations_without_the_other_label():
    assert explain(make_class(normal=0, keys=()), 0) == "the map peaks on the defect"
    assert explain(make_class(defective=0, keys=()), 0) in (
        "",
        "the map peaks at the edge of the image",
    )
    empty = make_class(keys=())
    empty.masks[5] = False
    assert "the mask is empty" in explain(empty, 5)


def test_rows_hold_maps_in_order_and_say_why():
    rows = gallery_of(make_class())
    first = rows.groups[LOWEST][0]
    assert list(first.pictures) == ["image", "mask", "reconstruction", "coarse", "refined", "final"]
    shown = picture_row(first)
    assert list(shown.pictures) == list(first.pictures)
    assert shown.explanation == first.explanation != ""
    assert (shown.title, shown.score) == (first.defect_type, first.score)


def test_strip_shows_the_image_that_changed_most():
    class_maps = make_class()
    class_maps.maps["refined"][8] += 3 * class_maps.masks[8]
    assert most_changed(class_maps) == 8
    strip = make_strip(class_maps, fake_steps)
    assert strip.filename == class_maps.filenames[8]
    names = list(strip.pictures)
    assert names[:3] == ["image", "mask", "coarse"]
    assert names[3:7] == [f"step {step}" for step in range(1, 5)]
    assert names[7].startswith("change, ±")
    assert all(picture.shape[:2] == (SIZE, SIZE) for picture in strip.pictures.values())
    assert strip.explanation.startswith("mean probability, coarse → refined: on the defect ")


def test_long_chains_are_shown_in_ten_steps():
    many = lambda name, images: np.zeros((100, len(images), 10, 10))
    names = list(make_strip(make_class(), many).pictures)
    assert names[3] == "step 1" and names[12] == "step 100" and len(names) == 14


def test_no_strip_without_a_defect_or_a_refinement():
    # The steps are not even computed.
    assert make_strip(make_class(defective=0), None) is None
    assert make_strip(make_class(keys=("reconstruction", "coarse")), None) is None


def test_step_source_names_the_class_of_every_image():
    class Maker:
        def diffusion_steps(self, images, class_ids):
            return images, class_ids.tolist()

    images = np.zeros((2, 8, 8, 3))
    assert step_source(Maker(), ("a", "b"))("b", images) == (images, [1, 1])
