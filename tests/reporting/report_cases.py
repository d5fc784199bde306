"""Classes, manifests and pages for the tests of the report, the comparison and the figures."""

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np

from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.protocol import Evaluator
from promptmad_jax.reporting.report import Report

SIZE = 40
NAME = "nut & <bolt>"
PARTS = ("reconstruction", "coarse", "refined")
VOID = {"meta", "img", "br", "link", "input"}

MANIFEST = {
    "promptmad_jax": "0.1.0",
    "time": "2025-03-04T05:06:07+00:00",
    "command": ["train", "--note=</pre><b>"],
    "seed": 7,
    "data_fingerprint": "0123456789abcdef",
    "devices": {"platform": "cpu", "kind": "cpu", "count": 8},
    "packages": {"jax": "0.10.2"},
    "config": {
        "name": "quickstart <1>",
        "model": "promptmad",
        "data": {"dataset": "synthetic_mvtec", "image_size": SIZE, "classes": []},
        "backbone": {"weights": "shipped"},
        "train": {"batch_size": 8},
    },
}
HISTORY = [
    {"step": s, "kind": "train", "loss": 2.0 / s, "dice": 1.0 / s, "learning_rate": 1e-3}
    for s in range(10, 1001, 10)
] + [{"step": s, "kind": "eval", "image_auroc": s / 1000} for s in (500, 1000)]


def manifest_of(dataset, image_size=224, **entries):
    """A manifest of another data set."""
    data = {"dataset": dataset, "image_size": image_size, "classes": []}
    return MANIFEST | {"config": MANIFEST["config"] | {"data": data}} | entries


def make_class(name=NAME, normal=4, defective=7, keys=PARTS, size=SIZE):
    """Noise with higher values on square defects of two types."""
    rng = np.random.default_rng(len(name))
    count = normal + defective
    masks = np.zeros((count, size, size), bool)
    masks[normal:, 10:20, 10:20] = True
    maps = {
        key: (rng.random((count, size, size), np.float32) + masks).astype(np.float32)
        for key in ("final", *keys)
    }
    dents = defective // 2
    return ClassMaps(
        class_name=name,
        filenames=tuple(f"{name}/test/{i:03d}.png" for i in range(count)),
        defect_types=("good",) * normal + ("dent",) * dents + ("crack",) * (defective - dents),
        labels=np.repeat([0, 1], [normal, defective]),
        images=rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        masks=masks,
        maps=maps,
    )


def with_final(class_maps, values):
    """The class with another final map."""
    final = np.asarray(values, np.float32)
    return dataclasses.replace(class_maps, maps=class_maps.maps | {"final": final})


def evaluate(*classes, thresholds=None):
    """The content of metrics.json."""
    with Evaluator(EvalConfig(), thresholds=thresholds) as evaluator:
        for class_maps in classes:
            evaluator.add(class_maps)
        return evaluator.result()


def write_report(directory, *classes, manifest=None, history=(), thresholds=None, steps=None):
    """Writes the report of the classes and returns its text, the result and the report."""
    report = Report(directory, steps=steps)
    for class_maps in classes:
        report.add(class_maps)
    result = evaluate(*classes, thresholds=thresholds)
    path = report.write(result, manifest, history)
    assert path == directory / "index.html"
    return path.read_text(encoding="utf-8"), result, report


def fake_steps(class_name, images):
    """Four diffusion steps that grow a blob."""
    logits = np.full((4, len(images), 10, 10), -3.0)
    for step in range(4):
        logits[step, :, 2:5, 2:5] += 1.5 * step
    return logits


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
        """The attributes of all elements with a tag."""
        return [attrs for name, attrs in self.tags if name == tag]

    def is_self_contained(self):
        """Returns True if the page contains everything that it shows."""
        sources = [attrs["src"] for _, attrs in self.tags if "src" in attrs]
        links = [attrs["href"] for _, attrs in self.tags if "href" in attrs]
        return all(source.startswith("data:") for source in sources) and all(
            link.startswith(("#", "data:")) for link in links
        )


def external_addresses(text):
    """Finds everything in a page, its pictures aside, that could be loaded from elsewhere."""
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    return re.findall(r"(?:https?:)?//[\w.]+|url\([^)]*\)|@import", text)
