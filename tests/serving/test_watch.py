"""Images are scored as they arrive, each of them once."""

import json
import os
import signal
import threading

import numpy as np
import pytest
from PIL import Image

from promptmad_jax.evaluation.thresholds import Thresholds
from promptmad_jax.runtime import interrupts
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving.prediction import Prediction
from promptmad_jax.serving.results import Options
from promptmad_jax.serving.watch import Arrivals, watch, watched_folders


@pytest.fixture
def camera(tmp_path):
    (tmp_path / "camera" / "sub").mkdir(parents=True)
    return tmp_path / "camera"


def save(path, level, time):
    Image.new("RGB", (12, 10), (level, 0, 0)).save(path)
    os.utime(path, (time, time))


def test_an_image_is_taken_once_it_has_settled(camera):
    names = lambda images: [str(name) for _, name in images]
    arrivals = Arrivals([camera], {str(camera / "old.png")}, set())
    save(camera / "old.png", 1, 50)
    save(camera / "b.png", 1, 60)
    save(camera / "sub" / "a.png", 1, 40)
    assert arrivals.take(0.0) == []
    save(camera / "b.png", 2, 70)
    assert names(arrivals.take(1.0)) == ["sub/a"]
    (camera / "late.txt").touch()
    assert names(arrivals.take(2.0)) == ["b"] and arrivals.take(9.0) == []
    save(camera / "b.png", 3, 80)
    save(camera / "old.png", 3, 81)
    assert arrivals.take(10.0) == []
    assert names(arrivals.take(11.0)) == ["b_2", "old"]
    (camera / "b.png").unlink()
    assert arrivals.take(12.0) == []


def test_a_signal_ends_a_watch_that_goes_on_later(camera, tmp_path, monkeypatch):
    monkeypatch.setattr(interrupts, "_heard", threading.Event())
    monkeypatch.setattr("promptmad_jax.serving.watch._SETTLED_SECONDS", 0.0)
    monkeypatch.setattr("promptmad_jax.serving.watch._POLL_SECONDS", 0.01)
    scored = []

    def predictor(images, class_name):
        scored.extend(images)
        if images[0].shape != (64, 64, 3):  # That of the start.
            signal.raise_signal(signal.SIGINT)
        limits = Thresholds(0.5, 0.5, 10)
        maps = [image[..., 0] / np.float32(255) for image in images]
        return [Prediction(class_name, float(m.max()), m, (0.0, 1.0), limits) for m in maps]

    out = tmp_path / "out"
    out.mkdir()
    for place, name in enumerate(("b.png", "a.png", "sub/b.png")):
        save(camera / name, 80 * place, 10 * place)
    before = interrupts.handle([signal.SIGINT])
    try:
        run = lambda: watch(predictor, [camera], "bolt", out, Options())
        rows = lambda: [json.loads(line) for line in (out / "scores.jsonl").open()]
        assert run() == 1 and [row["overlay"] for row in rows()] == ["b.png"]
        with (out / "scores.jsonl").open("a") as file:
            file.write('{"file": ')  # killed while it wrote
        assert run() == 1 and [row["overlay"] for row in rows()] == ["b.png", "a.png"]
        assert run() == 1 and len((out / "scores.csv").read_text().splitlines()) == 4
    finally:
        signal.signal(signal.SIGINT, before[signal.SIGINT])
    assert [row["file"] for row in rows()] == [
        str(camera / name) for name in ("b.png", "a.png", "sub/b.png")
    ]
    assert len(scored) == 3 + 3 + 2 + 1


def test_folders_that_cannot_be_watched(camera, tmp_path):
    for paths, output, message in (
        ([], tmp_path / "out", "name the folders"),
        ([str(tmp_path / "no")], tmp_path / "out", "is no folder"),
        ([str(camera)], camera / "out", "lie in each other"),
        ([str(camera)], tmp_path, "lie in each other"),
    ):
        with pytest.raises(UserError, match=message):
            watched_folders(paths, {"--output": str(output)})
    assert watched_folders([str(camera)], {"--output": str(tmp_path / "out")}) == [camera]
