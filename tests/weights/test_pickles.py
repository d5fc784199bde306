"""Pickles: read as tensors with torch, never executed, refused plainly without torch."""

import os
import pickle
import sys
import warnings

import numpy as np
import pytest

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights.files import read_tensors


class Malicious:
    """Unpickled freely, it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_without_torch_a_pickle_is_not_touched(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # import then raises ModuleNotFoundError
    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps(Malicious(tmp_path / "made")))
    with pytest.raises(UserError, match=r"w\.pth: a pickle, and reading one needs torch"):
        read_tensors(path, allow_pickles=True)
    assert not (tmp_path / "made").exists()


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed")


@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
def test_state_dicts(tmp_path, torch, nest):
    tensors = {
        "a": torch.arange(6.0).reshape(2, 3),
        "b": torch.ones(2, dtype=torch.bfloat16),
        "c": torch.arange(6.0).reshape(2, 3).T,
    }
    content = tensors if nest is None else {nest: tensors, "epoch": 3, "optimizer": {"lr": [0.1]}}
    torch.save(content, tmp_path / "w.pth")
    read = read_tensors(tmp_path / "w.pth", allow_pickles=True)
    assert sorted(read) == ["a", "b", "c"] and read["b"].dtype.name == "bfloat16"
    np.testing.assert_array_equal(read["c"], np.arange(6, dtype=np.float32).reshape(2, 3).T)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("archive", ["zip", "legacy", "plain"])
def test_malicious_pickles_run_nothing(tmp_path, torch, archive):
    path, made = tmp_path / "w.pth", tmp_path / "made"
    content = {"a": torch.ones(2), "b": Malicious(made)}
    if archive == "plain":
        path.write_bytes(pickle.dumps(Malicious(made)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=archive == "zip")
    with pytest.raises(UserError, match=r"w\.pth: the pickle wants more than tensors.*not.*run"):
        read_tensors(path, allow_pickles=True)
    assert not made.exists()


@pytest.mark.parametrize("kept", [0, 10, -30])
def test_truncated(tmp_path, torch, kept):
    path = tmp_path / "w.pt"
    torch.save({"a": torch.ones(100)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"w\.pt: cannot be read \(.*fetch it again"):
        read_tensors(path, allow_pickles=True)


def test_not_a_state_dict(tmp_path, torch):
    torch.save([torch.ones(2)], tmp_path / "w.pt")
    with pytest.raises(UserError, match="holds a list, not a state dict"):
        read_tensors(tmp_path / "w.pt", allow_pickles=True)
    torch.save({"a": torch.ones(2), "b": 3}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="b is a int, not a tensor"):
        read_tensors(tmp_path / "w.pt", allow_pickles=True)


@pytest.mark.filterwarnings("ignore:'torch.load' received a zip file")
def test_torchscript(tmp_path, torch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; such files remain
        torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(str(tmp_path / "w.pt"))
    with pytest.raises(UserError, match=r"w\.pt: a TorchScript archive"):
        read_tensors(tmp_path / "w.pt", allow_pickles=True)
