"""A text file is the old one or the new one."""

import os

import pytest

from promptmad_jax.runtime import files


def test_directories_are_made_and_the_text_replaced(tmp_path):
    path = tmp_path / "a" / "b.json"
    files.write_text_atomic(path, "old")
    files.write_text_atomic(path, "new ü")
    assert path.read_text(encoding="utf-8") == "new ü"
    assert [child.name for child in path.parent.iterdir()] == ["b.json"]


def test_failed_write_leaves_the_old_text_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "b.json"
    files.write_text_atomic(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_text_atomic(path, "new")
    assert path.read_text() == "old"
    assert [child.name for child in tmp_path.iterdir()] == ["b.json"]


@pytest.mark.parametrize(
    ("path", "local"), [("/runs/a", True), ("runs", True), ("gs://b/a", False)]
)
def test_is_local(path, local):
    assert files.is_local(path) == local


def test_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = {"run": f"{tmp_path}/run", "/runs/a": "/runs/a", "gs://bucket/run": "gs://bucket/run"}
    assert {path: os.fspath(files.absolute(path)) for path in paths} == paths


def test_object_store_gets_the_whole_file(bucket):
    files.write_text_atomic(bucket / "a" / "b.json", "new ü")
    assert (bucket / "a" / "b.json").read_text() == "new ü"
    assert [child.name for child in (bucket / "a").iterdir()] == ["b.json"]


def test_appended_part_is_whole_or_waits(tmp_path, file_size_limit):
    path = tmp_path / "log"
    log = files.Appender(path, b"start\n")
    with file_size_limit(10):
        with pytest.raises(OSError, match="large"):
            log.append(b"second\n")
        assert path.read_bytes() == b"start\n"
        with pytest.raises(OSError, match="large"):
            log.append(b"third\n")
    log.flush()
    assert path.read_bytes() == b"start\nsecond\nthird\n"


def test_object_store_is_rewritten_at_intervals(bucket, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(files.time, "monotonic", lambda: now[0])
    log = files.Appender(bucket / "log", b"0")
    log.append(b"1")
    assert (bucket / "log").read_bytes() == b"0"
    now[0] = files.REWRITE_SECONDS
    log.append(b"2")
    assert (bucket / "log").read_bytes() == b"012"
    log.append(b"3")
    log.flush()
    assert (bucket / "log").read_bytes() == b"0123"
