"""The pages in a real browser: they load nothing, show every picture, sort, filter and fit."""

import pytest

from promptmad_jax.commands.compare import compare_runs
from tests.reporting.browser import PROGRAM
from tests.reporting.report_cases import (
    HISTORY,
    fake_steps,
    make_class,
    manifest_of,
    with_final,
    write_report,
)
from tests.reporting.test_compare import store

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")

HELPERS = """
const visible = nodes => [...nodes].filter(node => node.getClientRects().length);
const names = table => visible(table.tBodies[0].rows).map(row => row.cells[0].innerText);
const change = (node, kind) => node.dispatchEvent(new Event(kind));
"""
TABLE = """(() => { %s
  const table = document.querySelector("table.sortable");
  const heads = table.tHead.rows[1].cells;
  const click = column => { heads[column].querySelector("button").click(); return names(table); };
  const filter = document.querySelector("input.filter");
  const type = text => { filter.value = text; change(filter, "input"); return names(table); };
  return {
    unsorted: names(table), descending: click(1), ascending: click(1),
    order: heads[1].getAttribute("aria-sort"), byDifference: click(2), byName: click(0),
    filtered: type("SCR"), nothing: type("x"), all: type(" "),
  };
})()"""
VIEWS = """(async () => { %s
  const shown = () => visible(document.querySelectorAll("article")).map(a => a.dataset.name);
  const select = document.querySelector(".picker select");
  const first = shown();
  select.selectedIndex = 0;
  change(select, "change");
  const chosen = shown();
  const curves = [...document.querySelectorAll(".curve.on")].map(curve => curve.dataset.class);
  document.querySelector('[data-step="-1"]').click();
  const stepped = shown(), address = location.hash;
  const moved = new Promise(done => addEventListener("hashchange", done));
  document.querySelector('td a[href="#class-0"]').click();
  await moved;
  return {
    first, chosen, curves, stepped, address, linked: shown(),
    charts: visible(document.querySelectorAll("article .charts figure")).length,
    histograms: visible(document.querySelectorAll(".charts div[data-class]")).length,
  };
})()"""
ZOOM = """(() => { %s
  const picture = visible(document.querySelectorAll("article img"))[0];
  const zoom = document.getElementById("zoom");
  picture.click();
  const copy = zoom.querySelector("img");
  const found = { open: zoom.open, same: copy.src === picture.src, words: zoom.innerText.trim() };
  copy.click();
  return { ...found, stays: zoom.open };
})()"""
COMPARISON = """(() => { %s
  const shown = () => visible(document.querySelectorAll("article")).map(a => a.id);
  const first = shown(), select = document.querySelector(".picker select");
  select.selectedIndex = 4;
  change(select, "change");
  const table = visible(document.querySelectorAll("article table"))[0];
  table.tHead.rows[0].cells[2].querySelector("button").click();
  return { first, chosen: shown(), byDifference: names(table) };
})()"""
EXTENT = "document.documentElement.scrollWidth"
PICTURES = "[...document.images].map(image => image.complete && image.naturalWidth)"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Three classes, the second of them the worst."""
    directory = tmp_path_factory.mktemp("report")
    bottle, screw = make_class("bottle"), make_class("screw")
    screw = with_final(screw, -screw.maps["final"])
    wood = make_class("wood", defective=8)
    wood.maps["final"][5] = -1
    _, result, _ = write_report(
        directory,
        bottle,
        screw,
        wood,
        manifest=manifest_of("mvtec_ad"),
        history=HISTORY,
        thresholds=dict.fromkeys(("bottle", "screw", "wood"), (0.9, 1.0)),
        steps=fake_steps,
    )
    scores = [values["image_auroc"] for values in result["classes"].values()]
    assert scores[0] > scores[2] > scores[1]
    return directory / "index.html"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    directory = tmp_path_factory.mktemp("comparison")
    nut, tile = make_class("nut"), make_class("tile")
    worse = with_final(nut, -nut.maps["final"])
    runs = [store(directory / "a", (nut, tile)), store(directory / "b", (worse, tile))]
    return compare_runs(runs, directory / "page")


def check_quiet(browser, page):
    """Checks that only the page was requested and that the console is empty."""
    assert browser.requests() == [page.as_uri()]
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [1280, 360])
def test_report(browser, report, width):
    browser.open(report, width)
    pictures = browser.evaluate(PICTURES)
    assert len(pictures) > 150 and all(pictures)
    assert browser.evaluate(EXTENT) <= width
    check_quiet(browser, report)


@pytest.mark.parametrize("width", [1280, 360])
def test_comparison(browser, comparison, width):
    browser.open(comparison, width)
    assert browser.evaluate(EXTENT) <= width
    assert browser.evaluate(COMPARISON % HELPERS) == {
        "first": ["metric-image_auroc"],
        "chosen": ["metric-pixel_ap"],
        "byDifference": ["tile", "nut"],
    }
    check_quiet(browser, comparison)


def test_sorting_and_filtering(browser, report):
    browser.open(report, 1280)
    assert browser.evaluate(TABLE % HELPERS) == {
        "unsorted": ["bottle", "screw", "wood"],
        "descending": ["bottle", "wood", "screw"],
        "ascending": ["screw", "wood", "bottle"],
        "order": "ascending",
        "byDifference": ["bottle", "wood", "screw"],
        "byName": ["bottle", "screw", "wood"],
        "filtered": ["screw"],
        "nothing": [],
        "all": ["bottle", "screw", "wood"],
    }
    check_quiet(browser, report)


def test_one_class_is_shown_the_worst_first(browser, report):
    browser.open(report, 1280)
    assert browser.evaluate(VIEWS % HELPERS) == {
        "first": ["screw"],
        "chosen": ["bottle"],
        "curves": ["0"] * 5,
        "stepped": ["wood"],
        "address": "#class-2",
        "linked": ["bottle"],
        "charts": 6,
        "histograms": 1,
    }
    check_quiet(browser, report)


def test_pictures_enlarge(browser, report):
    browser.open(report, 390)
    found = browser.evaluate(ZOOM % HELPERS)
    assert found.pop("words").startswith("image of screw/test/")
    assert found == {"open": True, "same": True, "stays": False}
    check_quiet(browser, report)


def test_a_request_would_be_noticed(browser, report, tmp_path):
    """The tests above must be able to fail."""
    page = tmp_path / "page.html"
    picture = '<img src="other.png" alt=""></body>'
    page.write_text(report.read_text(encoding="utf-8").replace("</body>", picture))
    browser.open(page, 1280)
    assert not all(browser.evaluate(PICTURES))
    assert browser.complaints() != []
