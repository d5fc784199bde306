"""Recent predictions beside the images that set the thresholds."""

import json
from dataclasses import replace

import numpy as np
import pytest

from promptmad_jax.commands.drift import drift
from promptmad_jax.evaluation.constants import Calibration
from promptmad_jax.evaluation.drift import LEVEL, compare
from promptmad_jax.evaluation.novelty import ClassGallery
from promptmad_jax.evaluation.thresholds import Rates, normal_scores, set_thresholds
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.errors import UserError

RATES = Rates(0.05, 0.01, 0.01)


def scored(rng, count, shift=0.0):
    return rng.normal(5 + shift, 1, count), rng.uniform(1, 2, count)


def calibration(rng, count=100):
    image, novelty = scored(rng, count)
    scores = normal_scores(np.zeros((count, 4, 4), np.float32), 1, novelty, "held-out", True)
    scores = scores._replace(image=tuple(map(float, image)))
    return Calibration(
        "held-out",
        1.0,
        {},
        {},
        {"bolt": set_thresholds(scores, RATES)},
        scores={"bolt": scores},
        gallery={"bolt": ClassGallery(np.eye(2, 8, dtype=np.float32))},
    )


def predicted(found, rng, count, shift=0.0):
    limit = found.thresholds["bolt"]
    rows = []
    for score, novelty in zip(*scored(rng, count, shift), strict=True):
        verdict = "defective" if score > limit.image else "normal"
        row = {"class_name": "bolt", "score": score, "verdict": verdict, "threshold": limit.image}
        rows.append(row | {"novelty": novelty / limit.novelty})
    return rows


def test_an_unchanged_line_seldom_drifts():
    rng = np.random.default_rng(0)
    found = [calibration(rng) for _ in range(300)]
    seen = [compare(predicted(own, rng, 60), own)[0].holds for own in found]
    assert seen.count(False) <= 3 * LEVEL * len(seen) and None not in seen


@pytest.mark.parametrize(
    ("shift", "message"), [(1.0, "has risen.*more false alarms"), (-1.0, "has fallen.*be missed")]
)
def test_a_drift_is_said_and_drawn(tmp_path, capsys, shift, message):
    rng = np.random.default_rng(1)
    found, files = calibration(rng), Workdir(tmp_path / "run")
    files.write_calibration(found)
    out = tmp_path / "out"
    out.mkdir()
    rows = [{"file": "torn.png", "error": "torn"}, *predicted(found, rng, 400, shift)]
    (out / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    drift(str(files.path), [str(out)], str(tmp_path / "report"))
    text = capsys.readouterr().out
    assert "bolt: the thresholds no longer hold\n  the score" in text and "of 400 images" in text
    stored = json.loads((tmp_path / "report" / "drift.json").read_text())["bolt"]
    assert stored["holds"] is False and stored["p"]["score"] < LEVEL <= stored["p"]["novelty"]
    [changed] = [line for line in stored["words"] if line.startswith("the score")]
    assert all(part in changed for part in message.split(".*"))
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count("<svg viewBox") == 2 and changed[1:] in page
    (out / "scores.jsonl").write_text("")
    with pytest.raises(UserError, match=r"out has no verdicts in scores\.jsonl"):
        drift(str(files.path), [str(out)], "")


def test_what_cannot_be_compared_is_said():
    rng = np.random.default_rng(2)
    found = calibration(rng)
    few = compare(predicted(found, rng, 5), found)[0]
    assert few.holds is None and "too few" in few.reason
    trained = {"bolt": found.scores["bolt"]._replace(comparable=False)}
    bad = predicted(found, rng, 50, 9.0)
    for rows, scores, message in (
        (predicted(found, rng, 50), trained, "trained on"),
        (predicted(found, rng, 50), {}, "keeps no scores"),
        (predicted(found, rng, 50) + bad, found.scores, "unless as many parts are bad"),
    ):
        [one] = compare(rows, replace(found, scores=scores))
        assert one.holds is None and message in one.reason
