"""How fast pseudo-anomalies are made."""

import itertools
from collections.abc import Iterator

import jax

from promptmad_jax.benchmarking.measure import Bench
from promptmad_jax.benchmarking.random_detector import Subject
from promptmad_jax.benchmarking.rows import Row, timed_row
from promptmad_jax.data.pseudo_anomaly import PseudoAnomalyConfig, synthesize

_BATCHES = 32


def synthesis(
    subject: Subject, config: PseudoAnomalyConfig, batch_size: int, bench: Bench
) -> Iterator[Row]:
    """Pseudo-anomalies of a batch as the training step makes them, on one device.

    The kinds that are pasted differ in what they cost, so each call takes other keys.
    """
    images, _ = subject.images(batch_size)
    images, textures = jax.device_put((images, images[::-1].copy()))
    function = jax.jit(lambda *arguments: synthesize(*arguments, config))
    keys = itertools.cycle(jax.random.split(jax.random.key(0), (_BATCHES, batch_size)))
    program = bench.compile(1, function, next(keys), images, textures)
    timing = bench.time("synthesis", lambda: function(next(keys), images, textures))
    yield (
        timed_row("synthesis", batch_size, timing)
        | {"image_size": subject.detector.image_size}
        | program.fields(batch_size, timing, bench.roof)
    )
