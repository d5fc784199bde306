"""Bent inputs, and the judge of them."""

import subprocess
import sys
from pathlib import Path

from tools.fuzz import judge

ROOT = Path(__file__).parents[2]
KINDS = "tree,archive,list,convert"


def test_a_hundred_bent_inputs_end_well():
    # A process of its own: the tool forks, which one that has started JAX must not.
    argv = [sys.executable, "-m", "tools.fuzz", "--seed=25", "--cases=100", f"--kinds={KINDS}"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "100 cases, seed 25: no fault\n", done.stdout + done.stderr


def test_the_judge_finds_what_is_wrong(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "half.json").touch()
    refused = judge.Outcome(2, "", "error: a\nerror: b\n", 1.0)
    before, after = {"a": "1", "b": "2"}, {"a": "3", "b": "2"}
    assert judge.faults(refused, before, after, output) == [
        "status 2 with 2 lines of error",
        "changed outside the output: 'a' and 0 more",
        "refused, but half.json is in the output",
    ]
    trace = "Traceback (most recent call last):\n  x\nValueError: .preparing-x/y\n"
    assert judge.faults(judge.Outcome(1, "", trace, 1.0), before, before, output) == [
        "traceback: ValueError: .preparing-x/y",
        "names a temporary file: .preparing-x/y",
    ]
    assert judge.faults(judge.Outcome(None, "", "", 9.0), {}, {}, output) == ["no end after 9 s"]
    assert not judge.faults(judge.Outcome(0, "", "warning: x\n", 1.0), {}, {}, output)
