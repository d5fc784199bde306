"""Writers are opened by name, and never stop the training."""

import sys
import types

import jax
import pytest

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.metrics_log import read_metrics
from promptmad_jax.runtime.writers import open_writers

CONFIG = {"name": "a run", "train": {"seed": 3}}
opened = []


class Recorder:
    """Notes what it is given; fails when told to."""

    def __init__(self, workdir, config, resume_step):
        self.arguments, self.calls, self.broken = (workdir, config, resume_step), [], False
        opened.append(self)

    def write(self, step, metrics, kind):
        if self.broken:
            raise ConnectionError("the service is down")
        self.calls.append((step, dict(metrics), kind))

    def flush(self):
        self.calls.append("flush")

    def close(self):
        self.calls.append("close")


@pytest.fixture
def recorder(monkeypatch):
    module = types.ModuleType("a_users_module")
    module.Recorder = Recorder
    opened.clear()
    monkeypatch.setitem(sys.modules, "a_users_module", module)
    return "a_users_module:Recorder"


def test_a_users_writer_gets_everything(tmp_path, recorder):
    writers = open_writers((recorder,), tmp_path, CONFIG, 5)
    writers.write(6, {"loss": 0.5})
    writers.write(6, {"pixel_ap": 0.25}, kind="eval")
    writers.flush()
    writers.close()
    (writer,) = opened
    assert writer.arguments == (str(tmp_path), CONFIG, 5)
    rows = [(6, {"loss": 0.5}, "train"), (6, {"pixel_ap": 0.25}, "eval")]
    assert writer.calls == [*rows, "flush", "close"]
    assert [row["kind"] for row in read_metrics(tmp_path / "metrics.jsonl")] == ["train", "eval"]


def test_a_writer_that_fails_is_dropped(tmp_path, recorder, capsys):
    writers = open_writers((recorder,), tmp_path, CONFIG, 0)
    opened[0].broken = True
    for step in (1, 2):
        writers.write(step, {"loss": 0.5})
    writers.close()
    assert capsys.readouterr().err.count("the service is down") == 1
    assert opened[0].calls == []
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]


def test_other_processes_open_none(tmp_path, recorder, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    open_writers((recorder,), tmp_path, CONFIG, 0).write(1, {"loss": 0.5})
    assert not opened and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wandbb", "neither wandb nor MODULE:FACTORY"),
        ("no_such_module:x", "No module named 'no_such_module'"),
        ("json:no_such_factory", "no attribute 'no_such_factory'"),
        ("json:loads", "could not be opened"),
    ],
)
def test_a_name_that_leads_nowhere(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        open_writers((name,), tmp_path, CONFIG, 0)


def test_weights_and_biases(tmp_path, monkeypatch):
    """Its interface as documented; a resumed run goes on in the same place."""
    options, logged = [], []

    class Run:
        id = "abc"

        def log(self, values, step):
            logged.append((values, step))

        def finish(self):
            logged.append("finish")

    module = types.ModuleType("wandb")
    module.init = lambda **given: options.append(given) or Run()
    monkeypatch.setitem(sys.modules, "wandb", module)
    writers = open_writers(("wandb",), tmp_path, CONFIG, 0)
    writers.write(1, {"loss": 0.5})
    writers.close()
    open_writers(("wandb",), tmp_path, CONFIG, 1)
    assert logged == [({"train/loss": 0.5}, 1), "finish"]
    assert options[0] == {"config": CONFIG, "name": "a run", "id": None, "resume": None}
    assert options[1] == {"config": CONFIG, "name": "a run", "id": "abc", "resume": "allow"}


def test_weights_and_biases_need_not_be_there(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"train\.writers: wandb is not installed.*pip install"):
        open_writers(("wandb",), tmp_path, CONFIG, 0)
