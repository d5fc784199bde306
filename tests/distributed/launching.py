"""Runs a launcher, and tells what it called."""

import os
import subprocess

from tests.distributed.processes import ROOT

LAUNCH = ROOT / "launch"


def calls(tmp_path):
    path = tmp_path / "calls"
    return path.read_text().splitlines() if path.exists() else []


def launch(script, *arguments, cwd=None, **environment):
    return subprocess.run(
        ["bash", str(LAUNCH / script), *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
