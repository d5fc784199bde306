"""Metric rows survive kills and resumes; progress is shown on the terminal."""

import json
import math

import jax
import pytest

from promptmad_jax.runtime import console
from promptmad_jax.runtime.console import Progress
from promptmad_jax.runtime.metrics_log import MetricsWriter, read_metrics


def events(workdir):
    """The scalars of all event files as {(tag, step): value}, and the steps purged from."""
    from tensorboardX.proto import event_pb2

    scalars, purges = {}, []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            at += length + 16
            if event.session_log.status == event_pb2.SessionLog.START:
                purges.append(event.step)
            for value in event.summary.value:
                scalars[value.tag, event.step] = value.simple_value
    return scalars, purges


def test_rows_are_there_as_soon_as_they_are_written(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    writer.write(1, {"loss": 0.5})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "kind": "train", "loss": 0.5}]
    writer.write(1, {"pixel_ap": 0.25}, kind="eval")
    assert events(tmp_path)[0] == {("train/loss", 1): 0.5, ("eval/pixel_ap", 1): 0.25}


def test_resume_drops_the_rows_that_will_be_repeated(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    for step in range(1, 6):
        writer.write(step, {"loss": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "ki')
    resumed = MetricsWriter(tmp_path, 3)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    resumed.write(4, {"loss": -4.0})
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 1), (2, 2), (3, 3), (4, -4)]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    assert events(tmp_path)[1] == [4]
    MetricsWriter(tmp_path, 0)
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_values_that_are_not_finite_are_null(tmp_path):
    MetricsWriter(tmp_path, 0).write(1, {"loss": math.nan, "grad_norm": math.inf})
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    row = {"step": 1, "kind": "train", "loss": None, "grad_norm": None}
    assert json.loads(line, parse_constant=pytest.fail) == row


@pytest.mark.parametrize("name", ["step", "kind"])
def test_column_names_are_reserved(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} is a column"):
        MetricsWriter(tmp_path, 0).write(1, {name: 1.0})


def test_store_that_cannot_append(bucket):
    writer = MetricsWriter(bucket / "run", 0)
    writer.write(1, {"loss": 1.0})
    writer.flush()
    resumed = MetricsWriter(bucket / "run", 1)
    resumed.write(2, {"loss": 2.0})
    resumed.write(3, {"loss": 3.0})
    assert [row["step"] for row in read_metrics(bucket / "run" / "metrics.jsonl")] == [1]
    resumed.flush()
    assert [row["step"] for row in read_metrics(bucket / "run" / "metrics.jsonl")] == [1, 2, 3]
    scalars, purges = events(bucket / "run")
    assert scalars == {("train/loss", step): float(step) for step in (1, 2, 3)}
    assert purges == [2]


def test_full_disk_makes_rows_wait(tmp_path, file_size_limit, capsys):
    writer = MetricsWriter(tmp_path, 0)
    writer.write(1, {"loss": 1.0})
    with file_size_limit(0):
        writer.write(2, {"loss": 2.0})
        writer.write(3, {"loss": 3.0})
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1]
    assert capsys.readouterr().err.count("cannot be written yet") == 1
    writer.write(4, {"loss": 4.0})
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    assert events(tmp_path)[0] == {("train/loss", step): float(step) for step in (1, 2, 3, 4)}


def test_other_processes_write_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    MetricsWriter(tmp_path, 0).write(1, {"loss": 1.0})
    with Progress(10, 0, 4) as progress:
        progress.step(10)
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out == ""


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_at_the_interval_and_at_the_end(clock, capsys):
    with Progress(total_steps=110, start_step=10, batch_size=4, interval=10.0) as progress:
        progress.step(10)
        progress.loss(0.5)
        for second in range(1, 26):
            clock[0] = float(second)
            progress.step(10 + 4 * second)
    assert capsys.readouterr().out.splitlines() == [
        "step 50/110  loss 0.5000  4.0 images/s  0:01:00 left",
        "step 90/110  loss 0.5000  4.0 images/s  0:00:20 left",
        "step 110/110  loss 0.5000  4.0 images/s  0:00:00 left",
    ]


def test_a_bar_moves_each_step(clock, monkeypatch, capsys):
    monkeypatch.setattr(console.sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with Progress(total_steps=100, start_step=0, batch_size=4) as progress:
        for step in range(1, 76):
            clock[0] = 60.0 + 0.2 * step  # a minute of compiling is left out
            progress.step(step)
        assert list(console.track("ab", "evaluating")) == ["a", "b"]  # without a bar of its own
        progress.loss(0.25)
    out = capsys.readouterr().out
    assert "75/100" in out
    assert "loss 0.2500  20.0 images/s  0:00:05 left" in out


def test_rate_and_time_left_wait_until_they_are_known(clock, capsys):
    with Progress(total_steps=60, start_step=0, batch_size=1, interval=0.0) as progress:
        for clock[0], step in ((60, 1), (61, 2), (62, 3), (63, 4)):
            progress.step(step)
        clock[0] = 100
        progress.pause()  # an evaluation is over
        for clock[0], step in ((102, 5), (104, 6), (106, 7)):
            progress.step(step)
    assert [line.partition("  ")[2] for line in capsys.readouterr().out.splitlines()] == [
        *("", "", "", "1.0 images/s  0:00:56 left"),
        *("0.8 images/s  0:01:09 left", "0.7 images/s  0:01:16 left", "0.7 images/s  0:01:20 left"),
    ]


def test_phases_say_what_they_do_and_how_far_they_are(clock, capsys):
    for clock[0] in console.track(range(0, 40, 8), "resizing 40 images"):
        pass
    what = "resizing 40 images"
    assert capsys.readouterr().out.splitlines() == [what, f"{what} 3/5", f"{what} 5/5"]
