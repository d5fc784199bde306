"""Prints what a checkpoint costs a training that goes on meanwhile, as one JSON line.

    PYTHONPATH=. python tools/measure_checkpoints.py [--config=quickstart.py] [--rounds=6]
    PYTHONPATH=. python tools/measure_checkpoints.py --config=promptmad_mvtec.py --rounds=0

Trains in blocks of equal length, with one save at the start of every second block. `extra_s` is by
how much the median block with a save is longer: waiting, copying and whatever the writing thread
takes from the steps. `overhead_at_one_a_minute` is that divided by 60 s. `blocked_s` is the part in
which the loop itself waits, `restore_s` what reading costs, checksums included.

With `--rounds=0` nothing is trained: it prints the processor time of a save, which other work on
the machine changes little and which is the most that steps on this CPU can lose to it.
"""

import dataclasses
import json
import tempfile
import time

import jax
import numpy as np
from absl import app, flags

from promptmad_jax.config import parse
from promptmad_jax.methods.reconstruction.abstract import CLASSES, abstract_training
from promptmad_jax.methods.reconstruction.random_detector import RandomDetector
from promptmad_jax.runtime.checkpoint import Checkpoints
from promptmad_jax.runtime.config_file import define_config_flag
from promptmad_jax.runtime.cpu.processor import core_count
from promptmad_jax.runtime.mesh import make_mesh
from promptmad_jax.training.state import abstract_state

_CONFIG = define_config_flag("configuration to measure", default="quickstart.py:onenip")
_ROUNDS = flags.DEFINE_integer("rounds", 6, "pairs of blocks; 0 saves alone", lower_bound=0)
_SECONDS = flags.DEFINE_float("block_s", 5.0, "shortest time of a block")


def start(config):
    """The training of the benchmark: real steps on random images."""
    trainer, _ = RandomDetector(config, "random", CLASSES).trainer(config.train.batch_size)
    return trainer


def save_alone(config, saves=4):
    """Processor seconds of a save, at most, of made-up numbers in the state's shapes."""
    mesh = make_mesh(dataclasses.replace(config.mesh, data=1, fsdp=1))
    shapes = abstract_training(config, mesh, "cpu").state
    rng = np.random.default_rng(0)

    def fill(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return jax.device_put(rng.standard_normal(leaf.shape).astype(leaf.dtype), leaf.sharding)

    state, taken, blocked = jax.tree.map(fill, shapes), [], []
    with tempfile.TemporaryDirectory() as directory:
        checkpoints = Checkpoints(directory, keep=2)
        for number in range(saves + 1):
            begin = time.process_time(), time.perf_counter()
            checkpoints.save(number, state)
            blocked.append(time.perf_counter() - begin[1])
            checkpoints.wait()
            taken.append(time.process_time() - begin[0])
        checkpoints.close()
    # The first has the start of threads in it.
    report = {"config": config.name, "state_mib": round(mebibytes(state), 1)}
    report |= {"save_cpu_s": round(max(taken[1:]), 3), "blocked_s": round(max(blocked[1:]), 3)}
    share = max(taken[1:]) / (60 * core_count())
    print(json.dumps(report | {"share_at_one_a_minute": round(share, 4)}))


def mebibytes(state):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state._replace(key=None))) / 2**20


def block(trainer, count):
    """Seconds of `count` steps."""
    begin = time.perf_counter()
    for _ in range(count):
        trainer()
    jax.block_until_ready(trainer.state)
    return time.perf_counter() - begin


def main(argv):
    del argv
    if not _ROUNDS.value:
        save_alone(parse(_CONFIG.value))
        return
    trainer = start(parse(_CONFIG.value))
    block(trainer, 2)
    count = max(3, round(_SECONDS.value / (block(trainer, 3) / 3)))
    plain, saved, blocked = [], [], []
    with tempfile.TemporaryDirectory() as directory:
        checkpoints = Checkpoints(directory, keep=2)
        for number in range(_ROUNDS.value):
            plain.append(block(trainer, count))
            begin = time.perf_counter()
            checkpoints.save(number, trainer.state)
            blocked.append(time.perf_counter() - begin)
            saved.append(block(trainer, count) + blocked[-1])
            begin = time.perf_counter()
            checkpoints.wait()
            left = time.perf_counter() - begin
        begin = time.perf_counter()
        jax.block_until_ready(checkpoints.restore_newest(abstract_state(trainer.state))[1])
        restore = time.perf_counter() - begin
        checkpoints.close()
    extra = float(np.median(saved) - np.median(plain))
    print(
        json.dumps(
            {
                "config": parse(_CONFIG.value).name,
                "device": jax.devices()[0].device_kind,
                "state_mib": round(mebibytes(trainer.state), 1),
                "step_s": round(float(np.median(plain)) / count, 4),
                "steps_a_block": count,
                "blocked_s": round(float(np.median(blocked)), 4),
                "left_after_block_s": round(left, 4),
                "extra_s": round(extra, 4),
                "overhead_at_one_a_minute": round(extra / 60, 5),
                "restore_s": round(restore, 3),
            }
        )
    )


if __name__ == "__main__":
    app.run(main)
