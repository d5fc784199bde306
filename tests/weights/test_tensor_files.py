import ml_dtypes
import numpy as np
import pytest
from flax import serialization
from safetensors import safe_open
from safetensors.numpy import save_file

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights.files import read_tensors, write_tensors

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b/c": np.ones(4, np.float16)}


NAMES = ("w.npz", "w.safetensors", "w.msgpack")


def write(path):
    match path.suffix:
        case ".npz":
            np.savez(path, **TENSORS)
        case ".msgpack":
            tree = {"a": TENSORS["a"], "b": {"c": TENSORS["b/c"]}}
            path.write_bytes(serialization.to_bytes(tree))
        case _:
            save_file(TENSORS, path)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_reads_what_was_written(tmp_path, name):
    tensors = read_tensors(write(tmp_path / name))
    assert sorted(tensors) == ["a", "b/c"]
    for key, value in TENSORS.items():
        np.testing.assert_array_equal(tensors[key], value)
        assert tensors[key].dtype == value.dtype


@pytest.mark.parametrize("kept", [0, 1, 5, 60, -20])
@pytest.mark.parametrize("name", NAMES)
def test_truncated(tmp_path, name, kept):
    path = write(tmp_path / name)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=f"{name}: cannot be read .*fetch it again"):
        read_tensors(path)


@pytest.mark.parametrize("name", NAMES)
def test_another_kind_of_file_under_the_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"<html>sign in</html>" * 20)
    with pytest.raises(UserError, match="cannot be read"):
        read_tensors(path)


def test_damaged_npz_member(tmp_path):
    path = write(tmp_path / "w.npz")
    data = bytearray(path.read_bytes())
    data[data.index(b"NUMPY") + 130] ^= 255
    path.write_bytes(data)
    with pytest.raises(UserError, match="cannot be read"):
        read_tensors(path)


def test_npz_of_pickled_objects_is_not_opened(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="cannot be read"):
        read_tensors(tmp_path / "w.npz")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pkl", ".bin"])
def test_pickles_are_refused_with_the_way_out(tmp_path, suffix):
    (tmp_path / f"w{suffix}").write_bytes(b"\x80\x02")
    with pytest.raises(UserError, match=r"`promptmad convert --to=promptmad"):
        read_tensors(tmp_path / f"w{suffix}")


def test_unknown_suffix_and_absent_file(tmp_path):
    (tmp_path / "w.h5").write_bytes(b"")
    with pytest.raises(UserError, match=r"unknown kind .*safetensors or \.npz"):
        read_tensors(tmp_path / "w.h5")
    with pytest.raises(UserError, match="no such file"):
        read_tensors(tmp_path / "none.npz")


@pytest.mark.parametrize("name", NAMES)
def test_writes_what_is_read(tmp_path, name):
    path = tmp_path / "new" / name
    write_tensors(path, TENSORS | {"t": TENSORS["a"].T}, {"network": "small"})
    back = read_tensors(path)
    np.testing.assert_array_equal(back["t"], TENSORS["a"].T)
    assert back["b/c"].dtype == np.float16
    assert [p.name for p in path.parent.iterdir()] == [name]
    if path.suffix == ".safetensors":
        with safe_open(path, framework="np") as file:
            assert file.metadata() == {"network": "small"}


def test_bfloat16_is_kept_or_refused(tmp_path):
    value = np.arange(4, dtype=np.float32).astype(ml_dtypes.bfloat16)
    write_tensors(tmp_path / "w.safetensors", {"a": value})
    back = read_tensors(tmp_path / "w.safetensors")["a"]
    assert back.dtype == ml_dtypes.bfloat16 and (back == value).all()
    with pytest.raises(UserError, match="npz cannot hold bfloat16"):
        write_tensors(tmp_path / "w.npz", {"a": value})
    with pytest.raises(UserError, match=r"written as \.safetensors or \.npz"):
        write_tensors(tmp_path / "w.h5", {"a": value})
