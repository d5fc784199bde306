"""How fast images become maps, whole and by stage."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax

from promptmad_jax.benchmarking.compilations import Compilations
from promptmad_jax.benchmarking.measure import Bench
from promptmad_jax.benchmarking.random_detector import Subject, make_up
from promptmad_jax.benchmarking.rows import Row, cost_fields, timed_row
from promptmad_jax.models.reconstruction.detector import text_of
from promptmad_jax.models.reconstruction.outputs import Outputs, anomaly_maps
from promptmad_jax.runtime.mesh import batch_sharding, replicated


def host_to_host(subject: Subject, batch_size: int, bench: Bench) -> Iterator[Row]:
    """Images in host memory to maps in host memory, with the class bank there, as `predict`."""
    maker, (params, stats), bank = subject.map_maker(batch_size), subject.state, subject.bank
    images, ids = subject.images(maker.batch_size)
    call = lambda: maker.maps(params, stats, bank, images, ids)
    with Compilations() as compilations:
        call()
    timing = bench.time("inference", call)
    yield (
        timed_row("inference", maker.batch_size, timing)
        | subject.fields()
        | {
            "compile_s": compilations.seconds,
            "bank_mib": sum(leaf.nbytes for leaf in jax.tree.leaves(bank)) / 2**20,
        }
    )


def on_device(subject: Subject, batch_size: int, bench: Bench) -> Iterator[Row]:
    """The same with images and maps on the devices."""
    batch_size = subject.fits(batch_size)
    whole, split = replicated(subject.mesh), batch_sharding(subject.mesh)
    maps = jax.jit(
        subject.detector.maps, in_shardings=(None,) * 4 + (split,) * 2, out_shardings=whole
    )
    inputs = jax.device_put(subject.images(batch_size), split)
    arguments = (*subject.state, subject.frozen, subject.bank, *inputs)
    program = bench.compile(subject.mesh.size, maps, *arguments)
    timing = bench.time("inference_device", lambda: maps(*arguments))
    yield (
        timed_row("inference_device", batch_size, timing)
        | subject.fields()
        | program.fields(batch_size, timing, bench.roof)
    )


def make_bank(subject: Subject, batch_size: int, bench: Bench) -> Iterator[Row]:
    """The class bank, made once for a trained model: here an image is a class's prompt."""
    maker, state = subject.map_maker(batch_size), subject.state
    call = lambda: maker.bank(*state)
    with Compilations() as compilations:
        jax.block_until_ready(call())
    yield (
        timed_row("bank", subject.class_count, bench.time("bank", call))
        | subject.fields()
        | {"compile_s": compilations.seconds}
    )


@dataclass(frozen=True)
class _Stage:
    """A jitted function with its arguments."""

    jitted: Callable[..., Any]
    arguments: tuple[Any, ...]

    def __call__(self) -> Any:
        return self.jitted(*self.arguments)


def stages(subject: Subject, batch_size: int, bench: Bench) -> Iterator[Row]:
    """What each part takes on its own, with everything on the devices.

    After the backbone the programs grow: up to the reconstruction, to the coarse map, to the
    refined map. A part is what a program takes longer than the one before, timed in turn.
    """
    batch_size = subject.fits(batch_size)
    programs = _stages(subject, batch_size)
    costs = {
        name: bench.compile(subject.mesh.size, stage.jitted, *stage.arguments).cost
        for name, stage in programs.items()
    }
    timings = bench.time_together(programs)
    total = timings["backbone"].median + timings[list(programs)[-1]].median
    before = None
    for name in programs:
        timing, cost = timings[name], costs[name]
        if before is not None:
            timing, cost = timing.less(timings[before]), cost - costs[before]
        before = None if name == "backbone" else name
        yield (
            timed_row(f"stage_{name}", batch_size, timing)
            | subject.fields()
            | cost_fields(cost, batch_size, timing.median, bench.roof)
            | {"share_of_time": timing.median / total}
        )


def _stages(subject: Subject, batch_size: int) -> dict[str, _Stage]:
    """The programs, by the part that each adds. What a result does not need, `jit` leaves out."""
    detector, frozen, split = subject.detector, subject.frozen, batch_sharding(subject.mesh)
    images, ids = jax.device_put(subject.images(batch_size), split)
    features = make_up(jax.eval_shape(detector.features, frozen, images), split)
    head = (*subject.state, subject.bank, features, ids)

    def outputs(params, stats, bank, features, ids) -> Outputs:
        model = detector.network.bind(params, stats)
        return model.predict(features, bank.prompt[ids], text_of(bank.text, ids))

    def to_map(field: str):
        def maps(params, stats, bank, features, ids):
            every = outputs(params, stats, bank, features, ids)
            hidden = {name: None for name in ("coarse_logit", "refined_logit") if name != field}
            return anomaly_maps(every._replace(**hidden), features.neck, detector.image_size)

        return _Stage(jax.jit(maps), head)

    there = jax.eval_shape(outputs, *head)
    found = {"backbone": _Stage(jax.jit(detector.features), (frozen, images))}
    found["reconstructor"] = to_map("")
    for name, field in (("segmentor", "coarse_logit"), ("diffusion", "refined_logit")):
        if getattr(there, field) is not None:
            found[name] = to_map(field)
    return found
