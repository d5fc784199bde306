"""`train --dry_run`: what a run takes, from its programs compiled for the devices it will use.

Trains nothing, reads no image and writes nothing.
"""

from collections.abc import Iterable, Sequence

import jax
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from promptmad_jax.config import Config, check_batch
from promptmad_jax.dry_run.collectives import Collective
from promptmad_jax.dry_run.estimate import Estimate
from promptmad_jax.dry_run.isolated import run_isolated
from promptmad_jax.dry_run.programs import (
    ASSUMED_IMAGES,
    PROGRAMS,
    Compiled,
    compile_program,
)
from promptmad_jax.dry_run.state import BY_SIZE, StateGroup, image_count, state_groups
from promptmad_jax.dry_run.targets import Chip, find_target
from promptmad_jax.methods.method import open_method
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.mesh import FSDP_MIN_ELEMENTS, make_mesh, partition_rules

_MIB = 2**20
_GIB = 2**30
_LINES = 10
_LEFT_OUT = {
    "tpu": "single-element gathers, scalar code and communication",
    "cuda": "communication, and all that keeps a kernel from its roof",
}


def dry_run(config: Config, devices: str = "", programs: Sequence[str] = PROGRAMS) -> None:
    """Prints the sharding of the state, and memory, time and communication of the programs.

    Args:
        devices: "" for those of this machine, or those of `--compile_for`, see `find_target`.
        programs: some of `PROGRAMS`.

    Raises:
        UserError: the devices or their compiler are not available, or the configuration does not
            fit them.
    """
    unknown = [name for name in programs if name not in PROGRAMS]
    if unknown:
        raise UserError(f"--programs={unknown[0]}: it must be some of {', '.join(PROGRAMS)}")
    if not devices or devices.startswith("cpu"):
        print_report(config, devices, programs)
    else:
        run_isolated(print_report, config, devices, programs)


def print_report(config: Config, devices: str, programs: Sequence[str]) -> None:
    """See `dry_run`."""
    target = find_target(devices)
    mesh = make_mesh(config.mesh, target.devices)
    # All processes compute the same.
    console = Console(quiet=jax.process_index() != 0)
    check_batch(config, mesh.size)
    run = open_method(config).abstract_training(mesh, mesh.devices.flat[0].platform)
    console.print(_mesh_line(config, mesh), highlight=False)
    console.print(state_table(state_groups(run.state, partition_rules(config.mesh))))
    for name in programs:
        print_program(compile_program(name, config, run, target.chip), target.chip, console)
    if "batch" in programs and image_count(config) is None:
        console.print(
            f"The data set is not prepared here: {ASSUMED_IMAGES:,} images are assumed, as many as "
            "MVTec-AD has."
        )


def _mesh_line(config: Config, mesh: Mesh) -> str:
    each = config.train.batch_size // mesh.size
    kind = mesh.devices.flat[0].device_kind
    return (
        f"{mesh.size} x {kind}, data={mesh.shape['data']} fsdp={mesh.shape['fsdp']}; "
        f"{config.train.batch_size} images per step, {each} per device"
    )


def state_table(groups: Iterable[StateGroup]) -> Table:
    """The sharding and size of each part of the state."""
    table = _table("State", "part", "rule", "split", "arrays", "MiB", "MiB per device")
    for group in groups:
        sizes = (f"{size / _MIB:.3f}" for size in (group.whole, group.device))
        table.add_row(group.name, group.rule, group.split, str(group.arrays), *sizes)
    table.caption = (
        f"The first rule that matches a path decides. {BY_SIZE}: {FSDP_MIN_ELEMENTS:,} elements or "
        "more are split over fsdp, along the largest dimension that it divides"
    )
    return table


def print_program(compiled: Compiled, chip: Chip | None, console: Console) -> None:
    """Prints the facts about a program, what it sends and the lines that cost the most."""
    console.print()
    for line in program_lines(compiled, chip):
        console.print(line, highlight=False)
    if compiled.collectives:
        console.print(sending_table(compiled.collectives))
    if compiled.estimate:
        console.print(lines_table(compiled.estimate))


def program_lines(compiled: Compiled, chip: Chip | None) -> list[str]:
    """Compile time, memory and estimated speed of a program, a line each."""
    fits = ""
    if chip:
        word = "fits" if compiled.memory <= chip.memory else "does not fit"
        fits = f", {word} {chip.memory / _GIB:.0f} GiB"
    lines = [
        f"{compiled.name}: {compiled.images} images; compiled in {compiled.seconds:.0f} s, "
        f"{compiled.lines:,} lines of HLO",
        f"  memory of a device: {compiled.memory / _GIB:.2f} GiB{fits} "
        f"(arguments {compiled.arguments / _GIB:.2f}, temporaries and results "
        f"{compiled.temporaries / _GIB:.2f})",
    ]
    if chip and compiled.estimate:
        seconds = compiled.estimate.seconds
        lines.append(
            f"  at best {1e3 * seconds:.2f} ms, {compiled.images / seconds:,.0f} images/s, "
            f"{compiled.estimate.kernels:,} kernels; left out: {_LEFT_OUT[chip.platform]}"
        )
    return lines


def sending_table(collectives: list[Collective]) -> Table:
    """Number and bytes of the collective operations of a call."""
    table = _table("Sent by a device", "operation", "number", "KiB")
    sent: dict[str, list[float]] = {}
    for collective in collectives:
        kind = collective.kind + (" in a loop, per turn" if collective.in_loop else "")
        sent.setdefault(kind, []).append(collective.sent())
    for kind, sizes in sorted(sent.items()):
        table.add_row(kind, str(len(sizes)), f"{sum(sizes) / 1024:.1f}")
    return table


def lines_table(estimated: Estimate) -> Table:
    """The lines of the source that take the most of the estimated time."""
    table = _table("Lines that cost the most", "line", "ms", "%")
    for line, seconds in list(estimated.by_line.items())[:_LINES]:
        share = 100 * seconds / estimated.seconds if estimated.seconds else 0
        table.add_row(line or "(no line of the project)", f"{1e3 * seconds:.3f}", f"{share:.1f}")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    numbers = ("arrays", "number", "ms", "%")
    for place, column in enumerate(columns):
        number = place > 0 and (column in numbers or "iB" in column)
        table.add_column(column, justify="right" if number else "left")
    return table
