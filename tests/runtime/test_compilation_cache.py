"""Where compiled programs are kept, and what the user has a say in."""

import os

import pytest

from promptmad_jax.runtime import compilation_cache

NAMES = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    # Set first, so that what the tests set goes with them.
    for name in NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def kept_in():
    compilation_cache.keep_compiled_programs()
    return os.environ[NAMES[0]]


def test_in_the_users_cache_apart_for_each_cpu(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = kept_in()
    assert first.startswith(f"{tmp_path}/promptmad_jax/xla/")
    assert os.environ[NAMES[1]] == "0"
    monkeypatch.delenv(NAMES[0])
    assert kept_in() == first
    monkeypatch.delenv(NAMES[0])
    monkeypatch.setattr(compilation_cache.processor, "description", lambda: {"flags": "other"})
    assert kept_in() != first


def test_home_without_xdg(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kept_in().startswith(f"{tmp_path}/.cache/promptmad_jax/xla/")


def test_what_the_user_set_stays(monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, "7")
    assert kept_in() == "7" == os.environ[NAMES[1]]
