"""Timings of training steps and of pseudo-anomaly synthesis."""

import itertools
import math
from dataclasses import replace

import jax
import numpy as np

from promptmad_jax.benchmarking.compilations import compile_times
from promptmad_jax.benchmarking.measure import Bench, compile_program
from promptmad_jax.benchmarking.rows import Row, cost_fields, timed_row
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
    trainer, own_fields = subject.trainer(batch_size)
    cost, fields = compile_program(subject.mesh.size, trainer.function, *trainer.arguments())
    for count in range(1, FIRST_CALLS + 1):
        finish_call(jax.block_until_ready(trainer()), count)
    if steps:
        bench = replace(bench, budget=Budget(steps, sample_s=0.0, limit_s=math.inf))
    with compile_times() as later:
        seconds = bench.time("training", trainer)
    row = timed_row("training", batch_size, seconds)
    row |= fields | cost_fields(cost, batch_size, row["median_s"], bench.roof)
    tenth = math.ceil(len(seconds) / 10)
    drift = float(np.median(seconds[-tenth:]) / np.median(seconds[:tenth]))
    row |= {"compilations_later": len(later), "drift": drift}
    return row | subject.fields() | own_fields


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
    cost, fields = compile_program(1, function, next(keys), images, textures)
    seconds = bench.time("synthesis", lambda: function(next(keys), images, textures))
    row = timed_row("synthesis", batch_size, seconds) | {"image_size": images.shape[1]}
    row |= fields | cost_fields(cost, batch_size, row["median_s"], bench.roof)
    if step_s:
        row |= {"case": "training_synthesis", "share_of_step": row["median_s"] / step_s}
    return row
