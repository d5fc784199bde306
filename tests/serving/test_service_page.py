"""The service's page in a browser, with a predictor that looks at brightness."""

import threading
import time

import pytest
from PIL import Image, ImageDraw

uvicorn = pytest.importorskip("uvicorn")

from tests.reporting.browser import PROGRAM  # noqa: E402
from tests.serving.test_service import make  # noqa: E402

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")
SECONDS = 60


@pytest.fixture(scope="module")
def address():
    saved = []
    server = uvicorn.Server(uvicorn.Config(make(saved=saved)[0].app(), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    for name, level in (("good", 60), ("bad", 250)):
        image = Image.new("RGB", (80, 60), (50, 50, 50))
        ImageDraw.Draw(image).rectangle((30, 20, 50, 40), (level,) * 3)
        image.save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return [str(folder / f"{name}.png") for name in ("good", "bad", "broken")]


def wait_for(browser, condition):
    deadline = time.monotonic() + SECONDS
    while not browser.evaluate(condition):
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)


def add(browser, files):
    node = browser.call("Runtime.evaluate", expression="document.getElementById('files')")
    browser.call("DOM.setFileInputFiles", files=files, objectId=node["result"]["objectId"])


def verdicts(browser):
    script = "[...document.querySelectorAll('#rows td:nth-child(3)')].map(x => x.textContent)"
    return browser.evaluate(script)


@pytest.mark.parametrize("width", [1200, 360])
def test_pictures_in_verdicts_out(browser, address, files, width):
    browser.open(address, width)
    wait_for(browser, "document.getElementById('state').textContent === 'Ready'")
    assert browser.evaluate("document.getElementById('class_name').length") == 3
    add(browser, files)
    done = "#rows .normal, #rows .defective, #rows .error"
    wait_for(browser, f"document.querySelectorAll('{done}').length >= 3")
    assert verdicts(browser) == ["normal", "defective", "error"]
    browser.evaluate("document.querySelectorAll('#rows tr')[1].click(); 0")
    wait_for(browser, "document.querySelectorAll('#outlines polygon').length === 1")
    wait_for(browser, "document.getElementById('overlay').naturalWidth === 80")
    slider = "document.getElementById('threshold')"
    browser.evaluate(f"{slider}.value = {slider}.max; {slider}.oninput(); 0")
    assert verdicts(browser) == ["normal", "normal", "error"]
    effect = browser.evaluate("document.getElementById('effect').textContent")
    assert effect == "1 of 2 pictures of bolt change their verdict; nothing is stored"
    assert not browser.evaluate("document.getElementById('csv').disabled")
    wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert browser.evaluate(wide)
    own = [url for url in browser.requests() if not url.startswith(("blob:", address))]
    refused = [event for event in browser.complaints() if "415" not in str(event)]
    assert own == [] and refused == []
