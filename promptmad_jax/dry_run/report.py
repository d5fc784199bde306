"""`train --dry_run`: memory and communication of a run, from shapes and the compiled step.

Trains nothing, reads no image and writes nothing.
"""

import importlib.util
import os
from collections.abc import Iterable

import jax
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from promptmad_jax.config import Config, check_batch
from promptmad_jax.dry_run.collectives import Collective, find_collectives
from promptmad_jax.dry_run.memory import BY_SIZE, Memory, StateGroup, memory, state_groups
from promptmad_jax.methods.method import open_method
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.mesh import FSDP_MIN_ELEMENTS, make_mesh, partition_rules

_MIB = 2**20


def dry_run(config: Config, devices: str = "", console: Console | None = None) -> None:
    """Prints the sharding of the state, the memory of a device and what a step sends.

    Args:
        devices: "" for those of this machine, "cpu:8" for eight simulated ones, or "tpu:v5e:2x4"
            for a TPU slice, which need not exist but requires the package libtpu.

    Raises:
        UserError: the devices are not available, or the configuration does not fit them.
    """
    mesh = make_mesh(config.mesh, find_devices(devices))
    # All processes compute the same.
    console = Console(quiet=jax.process_index() != 0) if console is None else console
    check_batch(config, mesh.size)
    platform = mesh.devices.flat[0].platform
    run = open_method(config).abstract_training(mesh, platform)
    console.print(_mesh_line(config, mesh), highlight=False)
    console.print(state_table(state_groups(run.state, partition_rules(config.mesh))))
    compiled = run.trace().lower().compile()
    resident = {"yes": True, "no": False, "auto": platform != "cpu"}[config.train.resident]
    console.print(memory_table(memory(config, run, compiled, mesh.size, resident)))
    console.print(sending_table(find_collectives(compiled.as_text())))
    console.print(f"Compiled by XLA for {platform}; temporaries differ on other platforms.")


def find_devices(name: str) -> list[jax.Device] | None:
    """The devices of `--dry_run_on`; None for those of this machine."""
    platform, _, which = name.partition(":")
    if not name:
        return None
    if platform == "cpu" and which.isdecimal() and int(which):
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", int(which))
        return jax.devices("cpu")
    if platform == "tpu" and which:
        if importlib.util.find_spec("libtpu") is None:
            raise UserError(f"--dry_run_on={name} needs the TPU compiler: `pip install libtpu`")
        from jax.experimental import topologies

        # Keeps JAX from searching for a TPU and from asking Google's metadata server.
        jax.config.update("jax_platforms", "cpu")
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        # Compiling takes no chip: several processes may do so at once.
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        return topologies.get_topology_desc(platform="tpu", topology_name=which).devices
    raise UserError(f"--dry_run_on={name}: it must be cpu:NUMBER or tpu:SLICE, such as tpu:v5e:2x4")


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


def memory_table(memory: Memory) -> Table:
    """The memory of a device, by purpose."""
    if memory.count is None:
        images = "images (their number is unknown until the data set is prepared)"
    else:
        place = "resident" if memory.resident else "in host memory"
        images = f"images, textures and clean features, {memory.count} images: {place}"
    state = ("parameters", "optimizer", "statistics, step, key", "frozen backbone and text")
    temporaries = "activations and gradients (XLA's temporaries)"
    names = (*state, images, "share of a batch", temporaries, "  gradients alone", "total")
    table = _table("Memory of a device", "", "MiB")
    for name, size in zip(names, (*memory[:8], memory.total), strict=True):
        table.add_row(name, f"{size / _MIB:.3f}")
    return table


def sending_table(collectives: list[Collective]) -> Table:
    """Number and bytes of the collective operations of a step."""
    table = _table("Sent by a device in a step", "operation", "number", "KiB")
    sent: dict[str, list[float]] = {}
    for collective in collectives:
        kind = collective.kind + (" in a loop, per turn" if collective.in_loop else "")
        sent.setdefault(kind, []).append(collective.sent())
    for kind, sizes in sorted(sent.items()):
        table.add_row(kind, str(len(sizes)), f"{sum(sizes) / 1024:.1f}")
    if not sent:
        table.add_row("nothing", "0", "0")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for place, column in enumerate(columns):
        number = place > 0 and (column in ("arrays", "number") or "iB" in column)
        table.add_column(column, justify="right" if number else "left")
    return table
