"""The report: its content, that it is self-contained, and that names are escaped."""

import base64
import dataclasses
import io
import os
import re

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.protocol import describe
from promptmad_jax.reporting.pages.rendering import TIMES
from promptmad_jax.reporting.pages.run_facts import worst_class
from promptmad_jax.reporting.report import Report, publications
from promptmad_jax.runtime.errors import UserError
from tests.reporting.report_cases import (
    HISTORY,
    MANIFEST,
    NAME,
    SIZE,
    Page,
    evaluate,
    external_addresses,
    fake_steps,
    make_class,
    manifest_of,
    with_final,
    write_report,
)

THRESHOLDS = {NAME: (0.9, 1.05), "tile": (0.9, 1.05)}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report") / "new" / "folder"
    text, _, _ = write_report(
        directory,
        make_class(),
        make_class("tile"),
        manifest=MANIFEST,
        history=HISTORY,
        thresholds=THRESHOLDS,
        steps=fake_steps,
    )
    return text


def test_page_has_every_picture(page):
    images = Page(page).all("img")
    # Two classes of three groups of 3 images, and two rows more above, with 6 pictures
    # each; image, mask, coarse map, 4 steps and change of each class.
    assert len(images) == (2 * 9 + 2) * 6 + 2 * 8
    for attributes in images:
        kind, data = re.fullmatch(r"data:image/(\w+);base64,(.+)", attributes["src"]).groups()
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert picture.format.lower() == kind
        assert picture.size == (SIZE, SIZE)


def test_page_is_self_contained(page):
    assert external_addresses(page) == []
    assert Page(page).is_self_contained()
    assert "default-src 'none'" in page


def test_page_describes_the_run(page):
    text = Page(page).text
    facts = ("quickstart <1>", "synthetic_mvtec", f"8 {TIMES} cpu", "2025-03-04 05:06", "PromptMAD")
    assert all(fact in text for fact in facts)
    images = "2 classes, 8 normal and 14 defective test images"
    assert f"{images}, maps of 40{TIMES}40 pixels" in text
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page


def test_page_describes_the_protocol(page):
    text, protocol = Page(page).text, describe(EvalConfig())
    for words in (*protocol["compat"].values(), protocol["pixel_label"], "normal: 4; defective: 7"):
        assert words in text


def test_names_are_escaped(page):
    for name in ("<bolt>", "<1>", "</pre><b>"):
        assert name not in page and name in Page(page).text


def test_training_curves(page):
    text = Page(page).text
    assert all(word in text for word in ("Losses", "dice", "Learning rate", "I-AUROC"))
    assert page.count('class="series-0"') == 4  # Three charts, and the legend of the losses.


def test_histograms_show_the_threshold(page):
    assert page.count('class="threshold"') == 2
    assert "threshold 1.05" in page


def test_diffusion_steps(page):
    text = Page(page).text
    assert page.count('<div class="steps">') == 2
    assert all(text.count(f"step {step}") == 2 for step in range(1, 5))
    assert "mean probability, coarse → refined: on the defect" in text


def test_only_figures_that_compare_are_shown_as_published():
    manifest = manifest_of("mvtec_ad")
    assert publications(manifest)
    zero_shot = manifest | {"config": manifest["config"] | {"model": "zero_shot"}}
    assert publications(zero_shot) == publications(MANIFEST) == publications({}) == ()


def test_published_columns(tmp_path):
    classes = make_class("bottle"), make_class("capsule")
    text, result, _ = write_report(tmp_path, *classes, manifest=manifest_of("mvtec_ad:1.0.0"))
    words = Page(text).text
    assert "decoded from a public summary" in words
    assert f"PromptMAD at 224{TIMES}224" in words
    assert "85.1" in words and "48.9*" in words
    difference = 100 * result["classes"]["bottle"]["pixel_ap"] - 85.13
    cells = [attrs for attrs in Page(text).all("td") if "published" in attrs.get("class", "")]
    assert f"{difference:.4f}" in [attrs["data-value"] for attrs in cells]
    # Two of image AUROC and pixel AP, one of pixel AUROC, for two classes and the mean.
    assert len(cells) == 5 * 3


def test_rows_carry_the_numbers_to_sort_by(tmp_path):
    text, result, _ = write_report(tmp_path, make_class(), make_class("plain", defective=0))
    values = [attributes.get("data-value") for attributes in Page(text).all("td")]
    assert str(100 * result["classes"][NAME]["pixel_ap"]) in values
    assert "plain: I-AUROC, I-AP, I-F1max: no defective image" in Page(text).text
    assert "P-AUPRO (1 of 2)" in Page(text).text
    assert "The test split has no defective image to compare with." in Page(text).text


def test_without_manifest_history_and_parts(tmp_path):
    text, *_ = write_report(tmp_path, make_class(keys=()))
    parsed = Page(text)
    assert len(parsed.all("img")) == (9 + 2) * 3
    assert "Evaluation" in parsed.text and '<div class="steps">' not in text
    assert 'id="training"' not in text and 'id="decisions"' not in text


def test_page_without_galleries(tmp_path):
    result = write_report(tmp_path, make_class())[1]
    page = Report(tmp_path).write(result).read_text(encoding="utf-8")
    assert Page(page).all("img") == [] and 'id="images"' not in page
    assert NAME in Page(page).text


def test_worst_class_is_named_first(tmp_path):
    good, bad = make_class("aaa"), make_class("zzz")
    bad = with_final(bad, -bad.maps["final"])
    text, result, _ = write_report(tmp_path, good, bad)
    assert worst_class(result["classes"]) == "zzz"
    words = Page(text).text
    assert words.index("Worst class") < words.index("zzz") < words.index("Classes")
    assert 'id="views" data-shown="1"' in text
    assert "7 of 7 defective images score no higher" in words


def test_undefined_figures_make_no_worst_class():
    values = dict.fromkeys(("image_auroc", "pixel_ap"))
    classes = {"plain": values, "bad": {"image_auroc": 0.6, "pixel_ap": 0.1}}
    assert worst_class(classes) == "bad"
    tied = {"a": {"image_auroc": 1.0, "pixel_ap": 0.5}, "b": {"image_auroc": 1.0, "pixel_ap": 0.4}}
    assert worst_class(tied) == "b"


def test_scores_are_kept(tmp_path):
    report = write_report(tmp_path, make_class())[2]
    assert len(report.scores) == 11
    assert report.scores[0].filename == f"{NAME}/test/000.png"
    assert [row.label for row in report.scores] == [0] * 4 + [1] * 7


def test_page_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="the page cannot be written"):
        write_report(tmp_path / "file", make_class())
    before, *_ = write_report(tmp_path, make_class(keys=()))
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(UserError, match="disk full"):
        write_report(tmp_path, make_class())
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == before


def test_fifteen_classes_stay_below_eight_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    blur = lambda shape, width: ndimage.gaussian_filter(rng.random(shape), width)
    plain = make_class("screw", size=224)
    count = len(plain.labels)
    photographs = 255 * blur((count, 224, 224, 3), (0, 2, 2, 0))
    maps = {
        name: (10 * blur(plain.masks.shape, (0, 5, 5)) + plain.masks).astype(np.float32)
        for name in plain.maps
    }
    class_maps = dataclasses.replace(plain, images=photographs.astype(np.uint8), maps=maps)
    report = Report(tmp_path, steps=fake_steps)
    report.add(class_maps)
    path = report.write(evaluate(class_maps))
    assert 15 * len(path.read_bytes()) < 8e6


def test_spread_over_prompts_and_decisions(tmp_path):
    class_maps = make_class()
    result = evaluate(class_maps, thresholds=THRESHOLDS)
    mean = {metric: {"mean": 0.4321, "std": 0.0123} for metric in result["mean"]}
    result["prompts"] = {"count": 5, "mean": mean}
    text = Page(Report(tmp_path).write(result).read_text(encoding="utf-8")).text
    assert "final, mean of 5 prompts" + "43.2" * len(mean) in text
    assert "final, std of 5 prompts" + "1.2" * len(mean) in text
    assert "above thresholds given by the user" in text and "I-acc" in text
