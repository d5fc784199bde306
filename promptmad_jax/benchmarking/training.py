"""Timings of training steps and of pseudo-anomaly synthesis."""

import itertools
import math
from dataclasses import replace

import jax
import numpy as np

from promptmad_jax.benchmarking.compilations import Compilations
from promptmad_jax.benchmarking.measure import Bench
from promptmad_jax.benchmarking.rows import Row, timed_row
from promptmad_jax.benchmarking.timing import Budget
from promptmad_jax.data.pseudo_anomaly.config import PseudoAnomalyConfig
from promptmad_jax.data.pseudo_anomaly.synthesis import synthesize
from promptmad_jax.methods.subject import Subject
from promptmad_jax.runtime.cpu.memory import FIRST_CALLS, finish_call

_KEYS = 32


def training(subject: Subject, batch_size: int, steps: int, bench: Bench) -> Row:
    """Times training steps with their batches, cut from arrays as in a run.

    `drift` is the median of the last tenth of the samples over that of the first tenth.

    Args:
        steps: number of steps, each a sample of its own; 0 leaves it to the budget.
    """
    trainer, fields = subject.trainer(batch_size)
    program = bench.compile(subject.mesh.size, trainer.function, *trainer.arguments())
    for count in range(1, FIRST_CALLS + 1):
        finish_call(jax.block_until_ready(trainer()), count)
    if steps:
        bench = replace(bench, budget=Budget(steps, sample_s=0.0, limit_s=math.inf))
    with Compilations() as later:
        timing = bench.time("training", trainer)
    tenth = math.ceil(len(timing.seconds) / 10)
    drift = np.median(timing.seconds[-tenth:]) / np.median(timing.seconds[:tenth])
    row = timed_row("training", batch_size, timing) | program.fields(batch_size, timing, bench.roof)
    row |= {"compilations_later": later.count, "drift": float(drift)}
    return row | subject.fields() | fields


def synthesis(
    images: np.ndarray, config: PseudoAnomalyConfig, bench: Bench, step_s: float = 0.0
) -> Row:
    """Times the pseudo-anomalies of a batch uint8 [B, S, S, 3], on one device.

    Args:
        step_s: seconds of a training step, to report the share of it; 0 for none.
    """
    batch_size = len(images)
    images, textures = jax.device_put((images, images[::-1].copy()))
    function = jax.jit(lambda *arguments: synthesize(*arguments, config))
    # Kinds of pseudo-anomalies differ in cost, so each call takes other keys.
    keys = itertools.cycle(jax.random.split(jax.random.key(0), (_KEYS, batch_size)))
    program = bench.compile(1, function, next(keys), images, textures)
    timing = bench.time("synthesis", lambda: function(next(keys), images, textures))
    row = timed_row("synthesis", batch_size, timing) | {"image_size": images.shape[1]}
    row |= program.fields(batch_size, timing, bench.roof)
    if step_s:
        row |= {"case": "training_synthesis", "share_of_step": timing.median / step_s}
    return row
