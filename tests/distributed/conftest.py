"""Fixtures of the tests of launching and of processes."""

import os

import pytest


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a program before all others on the PATH; each call adds its arguments to `calls`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))

    def make(name, body=""):
        program = folder / name
        program.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> "$CALLS"\n{body}\n')
        program.chmod(0o755)
        return program

    return make
