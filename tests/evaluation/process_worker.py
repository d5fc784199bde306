"""One of several processes that evaluate together; prints what it found as JSON.

Usage: process_worker.py ADDRESS COUNT INDEX, the package and the tests on the path.
"""

import json
import sys

import jax
import numpy as np

from promptmad_jax.runtime import processes
from tests.evaluation.shared_work import evaluate, in_turn


def main(address, count, index):
    jax.distributed.initialize(address, int(count), int(index))
    own = processes.this_run()
    counts = np.array([[2**62, -3, 2**32 - 1], [own.index, 2**31, 0]], np.int64)
    parts = own.gather(np.full((own.index, 3), own.index + 0.1))
    found = {
        "process": [own.index, own.count],
        "sum": processes.sum_counts(own, counts).tolist(),
        "parts": [part.tolist() for part in parts],
        "objects": processes.gather_objects(own, "ä" * own.index),
        "result": evaluate(own, in_turn),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
