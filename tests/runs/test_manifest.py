"""The manifest says what produced a result."""

import json
import sys

import jax
import numpy as np
import pytest

import promptmad_jax
from promptmad_jax.runs import manifest
from promptmad_jax.runtime.mesh import MeshConfig, make_mesh


def write(path, **extra):
    mesh = make_mesh(MeshConfig(-1, 2))
    manifest.write_manifest(path, {"model": {"width": 8}}, 3, "abc", mesh, extra)


@pytest.mark.smoke
def test_manifest(tmp_path):
    write(tmp_path / "run" / "manifest.json", parameters=10)
    written = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert written["promptmad_jax"] == promptmad_jax.__version__
    assert written["command"] == sys.argv
    assert (written["seed"], written["data_fingerprint"]) == (3, "abc")
    assert written["config"] == {"model": {"width": 8}}
    assert written["parameters"] == 10
    assert written["packages"]["jax"] == jax.__version__
    assert written["packages"]["numpy"] == np.__version__
    assert written["devices"] == {
        "platform": "cpu",
        "kind": "cpu",
        "count": 8,
        "mesh": {"data": 4, "fsdp": 2},
        "process_count": 1,
    }


def test_package_that_is_missing_is_said_to_be(monkeypatch):
    monkeypatch.setattr(manifest, "PACKAGES", ("jax", "no-such-package-here"))
    assert manifest.package_versions() == {
        "jax": jax.__version__,
        "no-such-package-here": "not installed",
    }


def test_extra_may_not_repeat_an_entry(tmp_path):
    with pytest.raises(ValueError, match="seed"):
        write(tmp_path / "manifest.json", seed=4)


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    write(tmp_path / "manifest.json")
    assert not list(tmp_path.iterdir())
