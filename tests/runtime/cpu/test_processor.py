"""What the system tells of the processor, and where it computes alone."""

import pytest

from promptmad_jax.runtime.cpu import processor

TWO_CORES = """processor	: 0
vendor_id	: GenuineIntel
flags		: fpu avx2

processor	: 1
vendor_id	: GenuineIntel
flags		: fpu
"""


@pytest.fixture(autouse=True)
def forget():
    cached = (processor.description, processor.largest_cache)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.mark.parametrize(
    ("platforms", "plugins", "device", "alone"),
    [
        ("cpu", ["cuda"], "nvidia0", True),
        ("tpu", [], "", False),
        ("", [], "nvidia0", True),
        ("", ["cuda"], "nvidia0", False),
        ("", ["cuda"], "", True),  # installed, without the hardware
    ],
)
def test_where_the_cpu_computes_alone(monkeypatch, tmp_path, platforms, plugins, device, alone):
    if device:
        (tmp_path / device).touch()
    monkeypatch.setattr(processor, "_FOLDER", tmp_path)
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(processor, "entry_points", lambda group: plugins)
    monkeypatch.setattr(processor, "find_spec", lambda name: None)
    assert processor.computes_alone() == alone


def test_description_of_the_first_core(monkeypatch, tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text(TWO_CORES)
    monkeypatch.setattr(processor, "_INFO", info)
    expected = {"processor": "0", "vendor_id": "GenuineIntel", "flags": "fpu avx2"}
    assert processor.description() == expected


def test_where_the_system_tells_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(processor, "_INFO", tmp_path / "none")
    assert processor.description() == {}


def test_largest_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(processor, "_CACHES", tmp_path)
    assert processor.largest_cache() == 0
    for index, size in enumerate(["48K", "32K", "2048K", "266240K"]):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    processor.largest_cache.cache_clear()
    assert processor.largest_cache() == 260 * 2**20
