"""One of several processes that evaluate together; prints what it found as a line of JSON."""

import json

import numpy as np

from promptmad_jax.runtime import cli, distributed, processes
from tests.evaluation.shared_work import evaluate, in_turn


def main(argv):
    distributed.initialize()
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
    cli.run(main)
