"""The HTTP service: answers, limits, tokens and the queue of the device."""

import io
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

fastapi = pytest.importorskip("fastapi")

from fastapi.testclient import TestClient  # noqa: E402

from promptmad_jax.data.image_files import Reading  # noqa: E402
from promptmad_jax.evaluation.thresholds import Thresholds, by_hand  # noqa: E402
from promptmad_jax.runtime.errors import UserError  # noqa: E402
from promptmad_jax.serving.prediction import Prediction  # noqa: E402
from promptmad_jax.serving.service.app import Service  # noqa: E402
from promptmad_jax.serving.service.device_queue import Busy, DeviceQueue  # noqa: E402
from promptmad_jax.serving.service.uploads import Limits, Memory  # noqa: E402

THRESHOLDS = Thresholds(0.4, 0.5, 30, 0.45, 1.0, 0.05, (0.01, 0.1))


class Brightest:
    """Scores an image by its brightest pixel."""

    class_names = ("bolt", "nut")

    def __init__(self):
        self.batches, self.free, self.entered = [], threading.Event(), threading.Event()
        self.free.set()

    def __call__(self, images, class_name):
        self.entered.set()
        self.free.wait()
        self.batches.append(len(images))
        maps = [np.asarray(Image.fromarray(x).convert("L").resize((8, 8))) / 255 for x in images]
        return [
            Prediction("bolt", float(m.max()), m.astype(np.float32), (0.0, 1.0), THRESHOLDS)
            for m in maps
        ]

    def check_class(self, class_name):
        if class_name not in (*self.class_names, "auto"):
            raise UserError(f"the model has no class {class_name!r}")


def png(level=200, size=(12, 10), mode="RGB"):
    content = io.BytesIO()
    Image.new(mode, size, level * 0x10101 if mode == "RGB" else level).save(content, "PNG")
    return content.getvalue()


def huge():
    """A PNG that says it has 50,000 x 50,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + png()[33:]


def make(predictor=None, token="", saved=None, capacity=8, kept=10**6, ready=lambda: True):
    predictor = predictor or Brightest()
    device = DeviceQueue(predictor, 4, 0.002, capacity)
    save = None
    if saved is not None:
        save = lambda name, value: saved.append((name, value)) or by_hand(THRESHOLDS, value)
    limits, known = Limits(100_000, 2.0, kept), dict.fromkeys(predictor.class_names, THRESHOLDS)
    service = Service(predictor, device, Reading(None, 1), limits, known, ready, token, save)
    return service, device


@pytest.fixture
def client():
    with TestClient(make()[0].app()) as client:
        yield client


def test_an_answer_and_its_pictures(client):
    answer = client.post("/v1/predict?class_name=bolt", content=png()).json()
    assert answer["verdict"] == "defective" and answer["score"] == pytest.approx(200 / 255)
    assert answer["size"] == [12, 10] and answer["regions"][0]["box"] == [0, 0, 12, 10]
    assert set(answer["milliseconds"]) == {"queue", "device", "total"}
    values = np.load(io.BytesIO(client.get(answer["map"]).content))
    assert values.shape == (10, 12) and values.dtype == np.float32
    assert Image.open(io.BytesIO(client.get(answer["overlay"]).content)).size == (12, 10)
    form = client.post("/v1/predict", files={"file": ("part.png", png(10), "image/png")})
    assert form.json()["verdict"] == "normal"
    text = client.get("/metrics").text
    assert 'promptmad_verdicts_total{class_name="bolt",verdict="defective"} 1.0' in text
    assert 'promptmad_requests_total{status="200"}' in text


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"hello", 415, "not an image of a known format"),
        (b"", 422, "no image"),
        (png()[:-30], 422, "cannot be decoded"),
        (png(mode="I;16"), 422, "has more than 8 bits"),
        (bytes(200_000), 413, "the image takes more than 0.1 MB"),
        (huge(), 413, "2500 megapixels"),
    ],
)
def test_bad_images(client, body, status, detail):
    answer = client.post("/v1/predict", content=body)
    assert answer.status_code == status and detail in answer.json()["detail"].replace(",", "")


def test_other_mistakes(client):
    assert client.post("/v1/predict?class_name=pin", content=png()).status_code == 404
    assert client.get("/v1/results/none/map.npy").status_code == 404
    assert client.get("/../setup.py").status_code == 404
    assert client.get("/v1/predict").status_code == 405
    form = client.post("/v1/predict", content=b"x", headers={"content-type": "multipart/form-data"})
    assert form.status_code == 422


def test_pages_load_nothing_from_elsewhere(client):
    for path in ("/", "/page.css", "/page.js", "/docs"):
        answer = client.get(path)
        assert answer.status_code == 200 and "https://" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "/v1/predict" in client.get("/docs").text
    assert client.get("/openapi.json").json()["paths"].keys() >= {"/v1/predict", "/healthz"}


def test_readiness():
    warm = threading.Event()
    service, _ = make(ready=warm.is_set)
    with TestClient(service.app()) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        assert client.post("/v1/predict", content=png()).status_code == 503
        warm.set()
        assert client.get("/readyz").status_code == 200


def test_a_token_guards_everything_but_the_page():
    saved = []
    with TestClient(make(token="secret", saved=saved)[0].app()) as client:
        assert client.get("/").status_code == 200
        assert client.get("/v1/classes").status_code == 401
        wrong = {"Authorization": "Bearer other"}
        assert client.post("/v1/predict", content=png(), headers=wrong).status_code == 401
        client.headers["Authorization"] = "Bearer secret"
        assert client.get("/v1/classes").json()["can_save"]
        path = "/v1/classes/bolt/threshold?threshold="
        assert client.put(f"{path}0.9").json() == {"name": "bolt", "threshold": 0.9}
        assert saved == [("bolt", 0.9)]
        assert client.get("/v1/classes").json()["classes"][0]["threshold"] == 0.9
        assert client.put(f"{path}nan").status_code == 422
        assert client.put(path.replace("bolt", "pin") + "1").status_code == 404


@pytest.mark.parametrize(("token", "status"), [("", 403), ("secret", 409)])
def test_thresholds_that_cannot_be_kept(token, status):
    with TestClient(make(token=token)[0].app()) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        answer = client.put("/v1/classes/bolt/threshold?threshold=1")
        assert answer.status_code == status and not client.get("/v1/classes").json()["can_save"]


def test_waiting_images_are_scored_together_and_others_refused():
    predictor = Brightest()
    predictor.free.clear()
    _, device = make(predictor, capacity=5)
    image = np.zeros((4, 4, 3), np.uint8)
    first = device.submit(image, "bolt")
    predictor.entered.wait()
    others = [device.submit(image, "bolt") for _ in range(5)]
    with pytest.raises(Busy):
        device.submit(image, "bolt")
    predictor.free.set()
    device.close()  # What was begun is answered.
    assert all(job.result().prediction.score == 0 for job in (first, *others))
    assert predictor.batches == [1, 4, 1]
    with pytest.raises(Busy):
        device.submit(image, "bolt")


def test_requests_share_memory():
    memory = Memory(100)
    with memory.share() as first, memory.share() as second:
        first(90)
        with pytest.raises(Busy):
            second(20)
        first(90)  # Nobody else holds any.
    with memory.share() as alone:
        alone(1000)


def test_a_failure_belongs_to_its_request():
    class Failing(Brightest):
        def __call__(self, images, class_name):
            if class_name == "nut":
                raise ValueError("broken")
            return super().__call__(images, class_name)

    with TestClient(make(Failing())[0].app(), raise_server_exceptions=False) as client:
        assert client.post("/v1/predict?class_name=nut", content=png()).status_code == 500
        assert client.post("/v1/predict?class_name=bolt", content=png()).status_code == 200


def test_old_results_make_room():
    service, _ = make(kept=1000)
    with TestClient(service.app()) as client:
        levels = (1, 2, 3, 4)
        old, *_, new = [client.post("/v1/predict", content=png(n)).json()["map"] for n in levels]
        assert client.get(old).status_code == 404 and client.get(new).status_code == 200
