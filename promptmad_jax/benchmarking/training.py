"""How fast training steps and pseudo-anomalies are, with batches cut from arrays as in a run."""

import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from promptmad_jax.benchmarking.compilations import Compilations
from promptmad_jax.benchmarking.measure import Bench
from promptmad_jax.benchmarking.rows import Row, timed_row
from promptmad_jax.benchmarking.timing import Timing
from promptmad_jax.data.pseudo_anomaly.config import PseudoAnomalyConfig
from promptmad_jax.data.pseudo_anomaly.synthesis import synthesize
from promptmad_jax.methods.subject import Subject
from promptmad_jax.runtime.cpu.dispatch import FIRST_CALLS, Calls

_KEYS = 32


def training(subject: Subject, batch_size: int, steps: int, bench: Bench) -> Row:
    """Training steps with their batches.

    Args:
        steps: how many; 0 leaves it to the budget. `drift` is the median of the last tenth over
            that of the first.
    """
    trainer, fields = subject.trainer(batch_size)
    program = bench.compile(subject.mesh.size, trainer.function, *trainer.arguments())
    calls = Calls()
    for _ in range(FIRST_CALLS):
        calls.made(jax.block_until_ready(trainer()))
    with Compilations() as later:
        timing = _time_steps(trainer, steps) if steps else bench.time("training", trainer)
    row = timed_row("training", batch_size, timing) | program.fields(batch_size, timing, bench.roof)
    row |= {"compilations_later": later.count, "drift": _drift(timing.seconds)}
    return row | subject.fields() | fields


def synthesis(
    images: np.ndarray, config: PseudoAnomalyConfig, bench: Bench, step_s: float = 0.0
) -> Row:
    """Making the pseudo-anomalies of a batch uint8 [B, S, S, 3], on one device.

    Kinds of pseudo-anomalies differ in cost, so each call takes other keys.

    Args:
        step_s: seconds of a training step, for the share of it.
    """
    batch_size = len(images)
    images, textures = jax.device_put((images, images[::-1].copy()))
    function = jax.jit(lambda *arguments: synthesize(*arguments, config))
    keys = itertools.cycle(jax.random.split(jax.random.key(0), (_KEYS, batch_size)))
    program = bench.compile(1, function, next(keys), images, textures)
    timing = bench.time("synthesis", lambda: function(next(keys), images, textures))
    row = timed_row("synthesis", batch_size, timing) | {"image_size": images.shape[1]}
    row |= program.fields(batch_size, timing, bench.roof)
    if step_s:
        row |= {"case": "training_synthesis", "share_of_step": timing.median / step_s}
    return row


def _time_steps(step: Callable[[], Any], count: int) -> Timing:
    """Every step on its own."""
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        jax.block_until_ready(step())
        seconds.append(time.perf_counter() - begin)
    return Timing(tuple(seconds))


def _drift(seconds: tuple[float, ...]) -> float:
    tenth = math.ceil(len(seconds) / 10)
    return float(np.median(seconds[-tenth:]) / np.median(seconds[:tenth]))
