"""Comparisons of runs: refused runs, differences, and the page."""

import copy
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from promptmad_jax.commands import compare
from promptmad_jax.commands.compare import compare_runs
from promptmad_jax.evaluation.image_scores import ImageScore, read_scores, write_scores
from promptmad_jax.evaluation.metrics.metrics import image_scores
from promptmad_jax.reporting import noise
from promptmad_jax.reporting.compared_runs import (
    ImageView,
    differing_settings,
    find_disagreements,
    load_runs,
    percentiles,
)
from promptmad_jax.reporting.explanations import Window
from promptmad_jax.reporting.pages import comparison
from promptmad_jax.reporting.report import scores_of
from promptmad_jax.runtime.errors import UserError
from tests.reporting.report_cases import (
    MANIFEST,
    Page,
    evaluate,
    external_addresses,
    make_class,
    with_final,
)

AREAS = roc_auc_score, average_precision_score
PAIR = make_class("nut & <b>"), make_class("tile")


def store(directory, classes, manifest=MANIFEST, scores=True):
    """Writes the files of a finished run."""
    directory.mkdir(parents=True)
    (directory / "metrics.json").write_text(json.dumps(evaluate(*classes)))
    (directory / "manifest.json").write_text(json.dumps(manifest))
    if scores:
        rows = (scores_of(one, image_scores(one.maps["final"])) for one in classes)
        write_scores(directory, list(itertools.chain(*rows)))
    return directory


def changed_config(**entries):
    manifest = copy.deepcopy(MANIFEST)
    manifest["config"] |= entries
    return manifest


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    nut, tile = PAIR
    worse = with_final(tile, -tile.maps["final"])
    return [
        store(root / "one" / "run", (nut, tile)),
        store(root / "two" / "run", (nut, worse), changed_config(model="onenip")),
        store(root / "three" / "run", (worse, nut)[::-1], changed_config(model="uniad")),
    ]


def test_page(runs, tmp_path):
    path = compare_runs(runs, tmp_path / "new")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert path == tmp_path / "new" / "index.html"
    assert external_addresses(text) == [] and page.is_self_contained()
    assert "one/run against two/run and three/run" in page.text
    assert "3 runs on synthetic_mvtec: 2 classes, 22 test images" in page.text
    assert "<b>" not in page.text.replace("nut & <b>", "") and "nut & <b>" in page.text
    assert '"onenip"' in page.text and '"uniad"' in page.text


def test_wins_and_differences(runs, tmp_path):
    text = compare_runs(runs[:2], tmp_path).read_text(encoding="utf-8")
    assert '<b class="up">0</b> : 1 : <b class="down">1</b>' in text
    results = [json.loads((run / "metrics.json").read_text()) for run in runs[:2]]
    points = [result["classes"]["tile"]["pixel_ap"] for result in results]
    assert f'data-value="{100 * (points[1] - points[0]):.4f}"' in text
    assert "two/run</b>, largest differences: I-AUROC in tile -" in text


def test_intervals_over_test_images(runs):
    labels, scores = np.array([0, 0, 1, 1, 1], bool), np.array([0.1, 0.5, 0.5, 0.7, 0.2])
    weights = np.array([[1, 1, 1, 1, 1], [2, 0, 0, 1, 2]])
    for own, drawn in zip(weights, noise._metrics(scores, labels, weights), strict=True):
        f1 = [f1_score(labels, scores >= limit, sample_weight=own) for limit in scores]
        areas = [of(labels, scores, sample_weight=own) for of in AREAS]
        assert drawn.tolist() == pytest.approx([*areas, max(f1)])
    first, second = load_runs(runs[:2])
    mean, classes = noise.image_intervals(first.scores, second.scores)
    assert classes["nut & <b>"]["image_auroc"] == (0, 0)
    low, high = classes["tile"]["image_auroc"]
    assert -100 <= low < high < 0
    assert mean["image_auroc"] == pytest.approx((low / 2, high / 2))


def test_only_differences_beyond_chance_are_coloured(runs, tmp_path):
    text = compare_runs(runs[:2], tmp_path).read_text(encoding="utf-8")
    cells = [attrs["class"].split() for attrs in Page(text).all("td") if "class" in attrs]
    judged = [cell for cell in cells if "difference" in cell]
    assert any("worse" in cell for cell in judged) and any("noise" in cell for cell in judged)
    means = comparison._compare(*load_runs(runs[:2])[::-1]).mean
    assert means["image_auroc"].gain < 0
    assert means["pixel_ap"].points < 0 == means["pixel_ap"].gain  # of a single seed


def test_intervals_over_seeds():
    own = {"mean": 0.7, "std": 0.01, "defined": 3}
    other = {"mean": 0.6, "std": 0.02, "defined": 3}
    low, high = noise.seed_interval(own, other)
    expected = stats.ttest_ind_from_stats(0.7, 0.01, 3, 0.6, 0.02, 3, equal_var=False)
    assert 0 < low < 10 < high and expected.pvalue < 0.05
    assert noise.seed_interval(own, other | {"std": None}) is None


def test_runs_with_random_weights_are_named(runs, tmp_path):
    config = changed_config(backbone={"weights": "random"})
    other = store(tmp_path / "other", PAIR, config)
    text = Page(compare_runs([runs[0], other], tmp_path / "out").read_text()).text
    assert "other: backbone.weights is random" in text and "one/run: backbone" not in text


def test_disagreements(runs):
    loaded = load_runs(runs[:2])
    images = find_disagreements(loaded)
    assert {entry.image.class_name for entry in images} == {"tile"}
    assert images == sorted(images, key=lambda entry: -entry.spread)
    assert find_disagreements([loaded[0], loaded[0]]) == []


def shown(path, keys, data_dir):
    """Views of images, in a grey of the run's own."""
    level = 40 * len(path.parent.name)
    mask = np.zeros((20, 20), bool)
    mask[3:6, 3:6] = True
    picture = np.full((20, 20, 3), level, np.uint8)
    return [ImageView(picture, mask, picture, Window(1, 1, 4)) for _ in keys]


def test_images_side_by_side(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "shown_images", shown)
    page = Page(compare_runs(runs, tmp_path, 3).read_text(encoding="utf-8"))
    alts = [attributes["alt"] for attributes in page.all("img")]
    first = find_disagreements(load_runs(runs))[0]
    assert len(alts) == 3 * (2 + 3)
    names = ["image", "mask"]
    names += [
        f"{name}/run, rank {rank:.0f}"
        for name, rank in zip(("one", "two", "three"), first.ranks, strict=True)
    ]
    assert alts[:5] == [f"{name} of {first.image.filename}" for name in names]
    assert "<img" not in compare_runs(runs, tmp_path).read_text(encoding="utf-8")


def test_a_run_without_its_model_says_so(runs, tmp_path, capsys):
    page = Page(compare_runs(runs, tmp_path, 3).read_text(encoding="utf-8"))
    assert f"No pictures: {runs[0]} holds no trained model" in page.text
    assert page.all("img") == [] and "rank most differently" in page.text
    assert f"no pictures of single images: {runs[0]}" in capsys.readouterr().out


def test_ranks():
    assert percentiles([3.0, 1.0, 2.0, 2.0, 9.0]).tolist() == [75, 0, 37.5, 37.5, 100]
    assert percentiles([4.0]).tolist() == [0]


def test_settings_that_differ(runs):
    assert differing_settings(load_runs(runs)) == {"model": ['"promptmad"', '"onenip"', '"uniad"']}


def test_without_image_scores(runs, tmp_path):
    other = store(tmp_path / "other", PAIR, scores=False)
    text = Page(compare_runs([runs[0], other], tmp_path / "out").read_text()).text
    assert "not compared, because image_scores.csv is missing from other;" in text
    assert "None: the configurations are equal." in text


def test_older_runs_with_fewer_figures(runs, tmp_path):
    other = store(tmp_path / "other", PAIR)
    result = json.loads((other / "metrics.json").read_text())
    for values in (result["mean"], *result["classes"].values()):
        del values["pixel_aupro_05"]
    (other / "metrics.json").write_text(json.dumps(result))
    assert "AUPRO 5%" not in compare_runs([runs[0], other], tmp_path / "out").read_text()


FAULTS = {
    "metrics.json is missing": lambda at: (store(at, PAIR) / "metrics.json").unlink(),
    "manifest.json is missing": lambda at: (store(at, PAIR) / "manifest.json").unlink(),
    "metrics.json is damaged": lambda at: (store(at, PAIR) / "metrics.json").write_text("{"),
    "manifest.json is damaged": lambda at: (store(at, PAIR) / "manifest.json").write_text("[]"),
    "image_scores.csv is damaged": lambda at: (store(at, PAIR) / "image_scores.csv").write_text(
        "class_name,filename\n"
    ),
    "different data": lambda at: store(at, PAIR, MANIFEST | {"data_fingerprint": "f" * 16}),
    "with the same classes": lambda at: store(at, PAIR[:1]),
    "different images, such as tile/test/011.png": lambda at: store(
        at, (PAIR[0], make_class("tile", defective=8))
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_runs_are_refused(runs, tmp_path, fault):
    broken = tmp_path / "broken"
    FAULTS[fault](broken)
    with pytest.raises(UserError, match=fault) as error:
        compare_runs([runs[0], broken], tmp_path)
    assert str(broken) in str(error.value)


def test_test_fingerprints_go_before_those_of_the_training_data(tmp_path):
    classes = (make_class(),)
    first = store(tmp_path / "a", classes, MANIFEST | {"test_fingerprint": "t"})
    held_out = MANIFEST | {"test_fingerprint": "t", "data_fingerprint": "other"}
    assert len(load_runs([first, store(tmp_path / "b", classes, held_out)])) == 2
    other = store(tmp_path / "c", classes, MANIFEST | {"test_fingerprint": "u"})
    with pytest.raises(UserError, match="different data"):
        load_runs([first, other])


def test_one_run_or_one_twice(runs, tmp_path):
    with pytest.raises(UserError, match="two or more"):
        compare_runs(runs[:1], tmp_path)
    with pytest.raises(UserError, match="given twice"):
        compare_runs([runs[0], runs[0]], tmp_path)


def test_scores_come_back_to_the_bit(tmp_path):
    rng = np.random.default_rng(0)
    names = ["a", 'with "quotes", comma', "ünï\ncode"]
    rows = [ImageScore("c", name, "good", 0, float(rng.normal())) for name in names]
    assert read_scores(write_scores(tmp_path, rows).parent) == rows
    with pytest.raises(UserError, match=r"image_scores\.csv is missing"):
        read_scores(tmp_path / "other")


def seeded(directory, seed, maps=1, **protocol):
    """A run of a class whose settings differ in their seeds."""
    one = make_class("tile")
    one = with_final(one, one.maps["final"] ** seed * maps)
    seeds = {"train": {"seed": seed, "batch_size": 8}, "memory": {"seed": seed}}
    store(directory, (one,), changed_config(**seeds, name=str(maps)) | {"seed": seed})
    path = directory / "metrics.json"
    result = json.loads(path.read_text())
    result["protocol"] |= {"step": 500} | protocol
    path.write_text(json.dumps(result))
    return directory


def test_seeds_are_grouped(tmp_path):
    paths = [seeded(tmp_path / "up" / str(seed), seed) for seed in (0, 1)]
    paths += [seeded(tmp_path / "down" / str(seed), seed, -1) for seed in (0, 1)]
    page = compare_runs(
        paths, tmp_path / "out", seeds=True, summaries=tmp_path / "json"
    ).read_text()
    assert "up against down" in page and "<code>train.seed" not in page
    both = [json.loads((path / "metrics.json").read_text())["mean"]["pixel_ap"] for path in paths]
    mean, std = np.mean(both[:2]), np.std(both[:2], ddof=1)
    assert std > 0.01 and f">{100 * mean:.1f} ± {100 * std:.1f}<" in page
    summary = json.loads((tmp_path / "json" / "up.json").read_text())
    figures = {"mean": round(mean, 6), "std": round(std, 6)}
    assert summary["mean"]["pixel_ap"] == summary["classes"]["tile"]["pixel_ap"] == figures
    facts = ("dataset", "count", "seeds", "step", "settings")
    expected = ["synthetic_mvtec", 2, [0, 1], 500, {"name": "1"}]
    assert [summary[fact] for fact in facts] == expected
    alone = compare_runs(paths[:2], tmp_path / "out", seeds=True).read_text()
    assert "<h1>up</h1>" in alone and "Classes won" not in alone
    paths[1] = seeded(tmp_path / "up" / "2", 2, step=400)
    with pytest.raises(UserError, match=r"ended at step 500 and .*2 at 400"):
        compare_runs(paths, tmp_path / "out", seeds=True)


def test_command(runs, tmp_path):
    def call(*arguments):
        command = [sys.executable, "-m", "promptmad_jax.compare", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True)

    done = call(*runs[:2], f"--output={tmp_path}", "--pictures=0")
    assert done.returncode == 0 and f"comparison: {tmp_path}/index.html" in done.stdout
    failed = call(runs[0], tmp_path / "nowhere", f"--output={tmp_path}")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ") and len(failed.stderr.splitlines()) == 1
