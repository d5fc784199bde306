"""The HTML page: what stands on it, that it needs nothing else, and the choice of images."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.curves import POINTS, draw_curves, loss_series
from promptmad_jax.evaluation.gallery import choose, colour_scale, make_gallery
from promptmad_jax.evaluation.protocol import Evaluator
from promptmad_jax.evaluation.report import Report
from promptmad_jax.runtime.errors import UserError

SIZE = 40
VOID = {"meta", "img", "br", "link", "input"}
NAME = "nut & <bolt>"


class Page(HTMLParser):
    """Collects tags and text and checks that every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._open = [], "", []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def make_class(name=NAME, normal=4, defective=7, keys=("reconstruction", "coarse", "refined")):
    rng = np.random.default_rng(len(name))
    count = normal + defective
    masks = np.zeros((count, SIZE, SIZE), bool)
    masks[normal:, 10:20, 10:20] = True
    maps = {
        key: (rng.random((count, SIZE, SIZE), np.float32) + masks).astype(np.float32)
        for key in ("final", *keys)
    }
    return ClassMaps(
        class_name=name,
        filenames=tuple(f"{name}/test/{i:03d}.png" for i in range(count)),
        defect_types=("good",) * normal + ("dent",) * defective,
        labels=np.repeat([0, 1], [normal, defective]),
        images=rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8),
        masks=masks,
        maps=maps,
    )


def write(directory, *classes, manifest=None, history=()):
    report = Report(directory)
    with Evaluator() as evaluator:
        for class_maps in classes:
            evaluator.add(class_maps)
            report.add(class_maps)
        result = evaluator.result()
    path = report.write(result, manifest, history)
    return path, result


MANIFEST = {
    "time": "2025-03-04T05:06:07+00:00",
    "seed": 7,
    "devices": {"platform": "cpu", "kind": "cpu", "count": 8},
    "config": {"name": "quickstart", "dataset": {"name": "synthetic_mvtec"}},
}
HISTORY = [
    {"step": s, "kind": "train", "loss": 2.0 / s, "loss_coarse": 1.0 / s, "rate": 3.0}
    for s in range(10, 1001, 10)
] + [{"step": 1000, "kind": "eval", "loss": 0.5}]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report") / "new" / "folder"
    path, _ = write(directory, make_class(), make_class("tile"), manifest=MANIFEST, history=HISTORY)
    assert path == directory / "index.html"
    return path.read_text(encoding="utf-8")


def test_page_has_every_picture(page):
    images = Page(page).all("img")
    # Two classes of 3 misses, 3 hits and 3 false alarms with 6 pictures each.
    assert len(images) == 2 * 9 * 6
    for attributes in images:
        kind, data = re.fullmatch(r"data:image/(\w+);base64,(.+)", attributes["src"]).groups()
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert picture.format.lower() == kind
        assert picture.size == (SIZE, SIZE)


def test_page_needs_nothing_else(page):
    assert "http" not in page
    assert "url(" not in page
    assert "@import" not in page
    parsed = Page(page)
    assert parsed.all("link") == []
    assert all("src" not in attributes for attributes in parsed.all("script"))


def test_page_says_what_was_run(page):
    text = Page(page).text
    for fact in ("quickstart", "synthetic_mvtec", "1,000", "8 x cpu", "2025-03-04 05:06"):
        assert fact in text
    assert "2 classes, 8 normal and 14 defective test images" in text
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page


def test_names_are_escaped(page):
    assert "<bolt>" not in page
    assert NAME in Page(page).text


def test_rows_carry_the_numbers_to_sort_by(tmp_path):
    path, result = write(tmp_path, make_class(), make_class("plain", defective=0))
    text = path.read_text(encoding="utf-8")
    values = [attributes.get("data-value") for attributes in Page(text).all("td")]
    assert str(result["classes"][NAME]["pixel_ap"]) in values
    assert values.count("") >= 7
    assert "plain: I-AUROC, I-AP, I-F1max: there is no defective image" in Page(text).text
    assert "P-AUPRO (1 of 2)" in Page(text).text


def test_without_manifest_history_and_parts(tmp_path):
    path, _ = write(tmp_path, make_class(keys=()))
    parsed = Page(path.read_text(encoding="utf-8"))
    assert parsed.all("svg") == []
    assert len(parsed.all("img")) == 9 * 3
    assert "Evaluation" in parsed.text


def test_page_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="the report cannot be written"):
        write(tmp_path / "file", make_class())


def test_choice_of_images():
    scores = np.array([0.1, 0.9, 0.5, 0.3, 0.8, 0.2])
    labels = np.array([1, 1, 1, 0, 0, 0])
    chosen = choose(scores, labels, 2)
    assert chosen == {"Worst misses": [0, 2], "Best hits": [1], "Worst false alarms": [4, 3]}
    assert choose(scores[3:], labels[3:], 2)["Worst misses"] == []
    assert choose(scores[:1], labels[:1], 2) == {
        "Worst misses": [0],
        "Best hits": [],
        "Worst false alarms": [],
    }


def test_scale_belongs_to_the_class():
    class_maps = make_class()
    maps = class_maps.maps["final"]
    low, high = colour_scale(class_maps, "final")
    normal = maps[class_maps.labels == 0]
    assert low == pytest.approx(np.median(normal), abs=1e-6)
    on_defects = np.quantile(maps[class_maps.masks], 0.99)
    assert high == pytest.approx(max(on_defects, np.quantile(normal, 0.999)), abs=1e-6)
    assert make_gallery(class_maps).scales["final"] == (low, high)


@pytest.mark.parametrize("value", [0.0, 0.25, 1e6])
def test_constant_maps_still_have_a_scale(value):
    class_maps = make_class(keys=())
    class_maps.maps["final"][:] = value
    low, high = colour_scale(class_maps, "final")
    assert high > low
    assert len(make_gallery(class_maps).groups["Best hits"]) == 3


def test_scale_without_normal_images():
    class_maps = make_class(normal=0)
    low, _ = colour_scale(class_maps, "final")
    assert low == pytest.approx(np.median(class_maps.maps["final"][~class_maps.masks]), abs=1e-6)


def test_loss_series():
    series = loss_series(HISTORY)
    assert list(series) == ["loss", "loss_coarse"]
    assert series["loss"][0][[0, -1]].tolist() == [10, 1000]
    broken = [{"step": 1, "kind": "train", "loss": None}, *HISTORY[:2]]
    assert len(loss_series(broken)["loss"][0]) == 2
    assert loss_series(HISTORY[:1]) == {}


def test_long_runs_are_averaged():
    history = [{"step": s, "kind": "train", "loss": float(s % 2)} for s in range(1, 2401)]
    steps, values = loss_series(history)["loss"]
    assert len(steps) == POINTS
    assert steps[-1] == 2400
    assert set(values) == {0.5}


@pytest.mark.parametrize("values", [[3.0, 3.0], [100.0, 0.1], [-1.0, 1.0], [0.0, 0.0]])
def test_curve_lies_inside_the_drawing(values):
    drawing = draw_curves({"loss": (np.array([1.0, 9.0]), np.array(values))})
    points = re.search(r'polyline class="series-0" points="([^"]+)"', drawing).group(1)
    coordinates = np.array([pair.split(",") for pair in points.split()], float)
    width, height = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', drawing).groups())
    assert (coordinates >= 0).all()
    assert (coordinates <= [width, height]).all()
    assert ("logarithmic" in drawing) == (values[0] == 100.0)
    assert drawing.count("<line") >= 2
