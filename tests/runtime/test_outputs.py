"""Folders of results: what is refused, what stays, and who holds them."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from promptmad_jax.runtime import lock, outputs
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.lock import LOCK_FILE, locked
from promptmad_jax.runtime.paths import absolute, path_or_id

HOLD = """
import sys, time
from promptmad_jax.runtime.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def made(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


RUN, EVALUATION = ("checkpoints/config.json", "metrics.json"), ("metrics.json", "manifest.json")


@pytest.mark.parametrize(
    ("names", "below", "message"),
    [
        (RUN, "", "holds a training run"),
        (RUN, "report", "which belongs to a training run"),
        (RUN, "report/deeper", "which belongs to a training run"),
        (EVALUATION, "", "holds an evaluation"),
        (("notes.txt",), "", "did not write, such as notes.txt"),
        (("photos/1.png",), "", "did not write, such as photos"),
        (("data/set/1.0.0/dataset_info.json",), "", "did not write, such as data"),
        (("file",), "file", "file is a file: give a folder"),
        (("file",), "file/out", "file is a file: give a folder"),
    ],
)
def test_what_is_there_stays(tmp_path, names, below, message):
    folder = made(tmp_path / "x", *names) / below
    before = sorted(tmp_path.rglob("*"))
    with (
        pytest.raises(UserError, match=message),
        outputs.claim(str(folder), outputs.PREDICT, "--output"),
    ):
        pytest.fail("went on")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("names", [(), (".DS_Store", "train.log"), ("scores.jsonl", "a.png")])
def test_new_empty_and_own_folders_are_taken_again_and_again(tmp_path, names):
    folder = made(tmp_path / "a" / "b", *names)
    for _ in range(2):
        with outputs.claim(str(folder), outputs.PREDICT, "--output"):
            made(folder, "result.png")
    with pytest.raises(UserError, match="holds predictions"):
        outputs.claim(str(folder), outputs.TRAIN, "--workdir").__enter__()


def test_a_folder_that_was_made_for_nothing_is_gone(tmp_path):
    with pytest.raises(RuntimeError), outputs.claim(f"{tmp_path}/a/b", outputs.TRAIN, "--workdir"):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_an_evaluation_of_another_run_stays(tmp_path):
    for run in ("a", "a"):
        with outputs.claim(f"{tmp_path}/out", outputs.EVALUATE, "--output", run):
            made(tmp_path / "out", *EVALUATION)
    with pytest.raises(UserError, match=r"holds results of .*/a: give"):
        outputs.claim(f"{tmp_path}/out", outputs.EVALUATE, "--output", "b").__enter__()


def test_results_replace_older_ones_as_a_whole(tmp_path):
    made(tmp_path, "index", "old.png", "both.png", "users.png")
    for fails in (True, False):
        try:
            with outputs.staged(tmp_path, "index", ["old.png", "both.png"]) as stage:
                made(stage, "index", "both.png", "sub/new.png")
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            names = ["both.png", "index", "old.png", "users.png"]
            assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert sorted(p.name for p in tmp_path.iterdir()) == ["both.png", "index", "sub", "users.png"]
    with (
        pytest.raises(UserError, match=r"users\.png was not written by promptmad"),
        outputs.staged(tmp_path, "index", []) as stage,
    ):
        made(stage, "index", "users.png")
    assert (tmp_path / "index").exists()


def test_a_file_is_not_replaced_unless_asked(tmp_path):
    source, link = made(tmp_path, "a.npz") / "a.npz", tmp_path / "b.npz"
    link.symlink_to(source)
    for target in (source, link):
        with pytest.raises(UserError, match="is the input itself"):
            outputs.check_file(str(target), "--output", (str(source),), overwrite=True)
    with pytest.raises(UserError, match="exists: give another file, or --overwrite"):
        outputs.check_file(str(source), "--output", (), overwrite=False)
    outputs.check_file(f"{tmp_path}/new/c.npz", "--output", (str(source),), overwrite=False)
    assert not (tmp_path / "new").exists()


def test_a_held_folder_is_refused_by_name_and_taken_over_once_its_holder_is_killed(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        message = (
            rf"in use by process {holder.pid} on .*, started 20.*delete {tmp_path}/{LOCK_FILE}"
        )
        with pytest.raises(UserError, match=message):
            locked(tmp_path).__enter__()
        holder.kill()
        holder.wait()
        began = time.monotonic()
        with locked(tmp_path):
            assert time.monotonic() - began < 1
            assert json.loads((tmp_path / LOCK_FILE).read_text())["process"] == os.getpid()
    assert not (tmp_path / LOCK_FILE).exists()


@pytest.mark.parametrize("place", ["disk", "bucket"])
@pytest.mark.parametrize("alive", [True, False])
def test_on_another_machine_the_heartbeat_decides(tmp_path, monkeypatch, request, place, alive):
    folder = tmp_path if place == "disk" else request.getfixturevalue("bucket")
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.3)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.1)
    path, holder = folder / LOCK_FILE, {"process": 7, "host": "far", "started": "then", "beat": 0}
    path.write_text(json.dumps(holder))
    if alive:
        beat = lambda _: path.write_text(json.dumps(holder | {"beat": 1}))
        monkeypatch.setattr(time, "sleep", beat)
        with pytest.raises(UserError, match="process 7 on far, started then"):
            locked(folder).__enter__()
        return
    with locked(folder):
        assert json.loads(path.read_text())["process"] == os.getpid()
    assert not path.exists()


def test_paths_are_absolute_and_hub_ids_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert absolute("~/a") == f"{tmp_path}/a" and absolute("gs://b/c") == "gs://b/c"
    assert [path_or_id(p) for p in ("owner/name", "./w", "~/w")] == [
        "owner/name",
        *[f"{tmp_path}/w"] * 2,
    ]
    pathlib.Path("owner/name").mkdir(parents=True)
    assert path_or_id("owner/name") == f"{tmp_path}/owner/name"
