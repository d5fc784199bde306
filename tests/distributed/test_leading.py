"""Who goes first where several processes need one thing; processes are threads."""

import json
import threading
import time

import pytest

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.processes import ALONE, leader_first, leads
from tests.evaluation.threads import run_processes


class Shop:
    """Work that keeps its result in a folder, as a cache does, and counts how often it was done."""

    def __init__(self):
        self.made, self.found = [], []
        self.busy = threading.Lock()

    def make(self, folder):
        with self.busy:
            path = folder / "result.json"
            if path.exists():
                self.found.append(folder)
            else:
                time.sleep(0.05)
                path.write_text(json.dumps("made"))
                self.made.append(folder)
            return json.loads(path.read_text())


def test_one_process_makes_and_the_others_find(tmp_path):
    shop = Shop()
    results = run_processes(4, lambda run: leader_first(run, tmp_path, lambda: shop.make(tmp_path)))
    assert results == ["made"] * 4
    assert len(shop.made) == 1 and len(shop.found) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_one_on_each_disk(tmp_path):
    disks = [tmp_path / "a", tmp_path / "b"]
    shop = Shop()

    def work(run):
        disk = disks[run.index // 2]
        return leader_first(run, disk, lambda: shop.make(disk)), leads(run, disk)

    results = run_processes(4, work)
    assert sorted(shop.made) == sorted(shop.found) == disks
    assert [leading for _, leading in results] == [True, False, True, False]


def test_where_nothing_can_be_written_all_lead(tmp_path):
    missing = tmp_path / "file" / "folder"
    (tmp_path / "file").write_text("")
    assert run_processes(2, lambda run: leads(run, missing)) == [True, True]


@pytest.mark.parametrize("late", [False, True])
def test_a_failure_is_everybodys(tmp_path, late):
    """Whether it is the leader's or one of the others'."""

    def work(run):
        def make():
            if (run.index == 2) if late else (run.index == 0):
                raise UserError(f"process {run.index} has no room")
            return run.index

        with pytest.raises(UserError, match="has no room") as error:
            leader_first(run, tmp_path, make)
        return str(error.value)

    assert len(set(run_processes(3, work))) == 1


def test_a_process_alone_writes_no_token(tmp_path):
    assert leader_first(ALONE, tmp_path / "absent", lambda: 3) == 3
    assert not (tmp_path / "absent").exists()
