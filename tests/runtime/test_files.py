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
