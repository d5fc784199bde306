"""A process of a run that meets the others every tenth of a second, until one of them fails.

Usage: dying_worker.py --fails=INDEX --how=killed|mistaken|broken and its place.
"""

import os
import signal
import time

import numpy as np
from absl import flags

from promptmad_jax.runtime import cli, distributed
from promptmad_jax.runtime.errors import UserError

_FAILS = flags.DEFINE_integer("fails", 0, "which process fails")
_HOW = flags.DEFINE_string("how", "killed", "how it fails")
MEETINGS = 600


def main(argv):
    distributed.initialize()
    from promptmad_jax.runtime.processes import this_run

    run = this_run()
    for meeting in range(MEETINGS):
        if meeting == 3 and run.index == _FAILS.value:
            fail(_HOW.value)
        run.gather(np.array([meeting]))
        if meeting == 2:
            print("met", flush=True)
        time.sleep(0.1)


def fail(how):
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "mistaken":
        raise UserError("photo.png is not an image; remove it")
    raise RuntimeError("a bug")


if __name__ == "__main__":
    cli.run(main)
