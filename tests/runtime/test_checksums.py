"""Every changed byte, cut file and missing file is noticed, and named."""

import pytest

from promptmad_jax.runtime.checksums import CHECKSUM_FILE, find_damage, write_checksums


@pytest.fixture(params=["disk", "bucket"])
def directory(request, tmp_path):
    directory = tmp_path if request.param == "disk" else request.getfixturevalue("bucket") / "run"
    (directory / "a" / "b").mkdir(parents=True)
    (directory / "late").write_text("may change")
    (directory / "a" / "one").write_bytes(bytes(range(100)))
    (directory / "a" / "b" / "late").write_bytes(b"summed, for it is not at the top")
    (directory / "empty").write_bytes(b"")
    write_checksums(directory, unsummed=("late",))
    return directory


def test_nothing_is_wrong_with_what_was_written(directory):
    (directory / "late").write_text("changed")
    (directory / "further").write_text("a file")
    assert find_damage(directory) is None


@pytest.mark.parametrize("name", ["a/one", "a/b/late", CHECKSUM_FILE])
def test_every_flipped_byte_is_noticed(directory, name):
    path = directory / name
    data = path.read_bytes()
    for at in range(0, len(data) - 1, 3):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert find_damage(directory).startswith(f"{name} was changed")
    path.write_bytes(data)
    assert find_damage(directory) is None


@pytest.mark.parametrize("name", ["a/one", "a/b/late", "late", "empty", CHECKSUM_FILE])
def test_missing_file_is_noticed(directory, name):
    (directory / name).unlink()
    assert find_damage(directory) == f"{name} is missing"


def test_cut_and_grown_files_are_noticed(directory):
    (directory / "a" / "one").write_bytes(bytes(range(50)))
    assert find_damage(directory) == "a/one was changed or cut short"
    (directory / "a" / "one").write_bytes(bytes(range(100)))
    (directory / "empty").write_bytes(b"0")
    assert find_damage(directory) == "empty was changed or cut short"
