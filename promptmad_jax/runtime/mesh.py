"""The device mesh, and the shardings of a run's arrays."""

import dataclasses
import functools
import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.field_types import Range

AXES = ("data", "fsdp")
# XLA propagates the arguments' shardings. JAX's default is moving to axes whose sharding is part of
# every array's type.
_AXIS_TYPES = (AxisType.Auto,) * len(AXES)
_AXES = f"it can be {', '.join(map(repr, AXES))}, or '' for a dimension that is not split"
AxisSize = Annotated[int, Range(1, 1_000_000)] | Literal[-1]
FSDP_MIN_ELEMENTS = 2**16

Rules = Sequence[tuple[str, PartitionSpec]]


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis, and the sharding of the state over them.

    Attributes:
        data: devices that each take a part of the batch; -1 for all that fsdp leaves.
        fsdp: devices that the parameters are split over, each with a part of the batch as well; -1
            for all that data leaves.
        rules: ordered pairs of a regular expression and the axes of a leaf's dimensions, "" for one
            that is not split: `(("mlp/lin1/kernel$", ("", "fsdp")), ("segmentor/", ()))`. The first
            that matches a leaf's path (`params/reconstructor/encoder/layer_0/mlp/lin1/kernel`)
            decides; other leaves follow the default rule (`state_shardings`).

    Raises:
        ValueError: both axes are -1, or a rule names an unknown axis or is no regular expression.
    """

    data: AxisSize = -1
    fsdp: AxisSize = 1
    rules: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __post_init__(self):
        if self.data == self.fsdp == -1:
            raise ValueError("data and fsdp are both -1; only one of them may be")
        for pattern, axes in self.rules:
            unknown = [axis for axis in axes if axis and axis not in AXES]
            if unknown:
                raise ValueError(f"rules: {pattern!r} names the axis {unknown[0]!r}; {_AXES}")
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    f"rules: {pattern!r} is not a regular expression ({error})"
                ) from error


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Makes the mesh with axes ("data", "fsdp") over `devices` (default: all devices of the run).

    A single process may use only the first devices. Several processes must use all, since each
    process holds a part of the batch.

    Raises:
      UserError: the axes do not fit the devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = _mesh_shape(config, len(devices))
    size = math.prod(shape)
    if size > len(devices) or (size < len(devices) and jax.process_count() > 1):
        raise UserError(
            f"mesh data={config.data} fsdp={config.fsdp} needs {size} devices, but this run has "
            f"{len(devices)}; set mesh.data=-1 to use all of them"
        )
    return jax.make_mesh(shape, AXES, axis_types=_AXIS_TYPES, devices=devices[:size])


def abstract_mesh(data: int, fsdp: int = 1) -> AbstractMesh:
    """A mesh without devices, to trace and lower programs for."""
    return AbstractMesh((data, fsdp), AXES, axis_types=_AXIS_TYPES)


def _mesh_shape(config: MeshConfig, device_count: int) -> tuple[int, int]:
    shape = (config.data, config.fsdp)
    if -1 not in shape:
        return shape
    given = -math.prod(shape)
    if device_count % given:
        raise UserError(
            f"mesh data={config.data} fsdp={config.fsdp}: {device_count} devices cannot be split "
            f"into groups of {given}; choose a divisor of {device_count}"
        )
    rest = device_count // given
    return (rest, config.fsdp) if config.data == -1 else (config.data, rest)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding that keeps a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding that splits the first dimension [B, ...] over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def process_rows(sharding: NamedSharding, count: int) -> np.ndarray:
    """The rows int [n] of a batch of `count`, split by `sharding`, that this process holds."""
    slices = sharding.addressable_devices_indices_map((count,)).values()
    rows = sorted(
        {(rows.start or 0, count if rows.stop is None else rows.stop) for (rows,) in slices}
    )
    return np.concatenate([np.arange(*pair) for pair in rows])


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies host arrays, the same on all processes, to every device.

    `jax.device_put` would compare the copies of several processes over the network.
    """
    sharding = replicated(mesh)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    put = functools.partial(jax.make_array_from_process_local_data, sharding)
    return jax.tree.map(lambda x: put(np.asarray(x), np.shape(x)), tree)


def open_channels(mesh: Mesh) -> None:
    """Connects the processes along each axis of the mesh.

    Between CPUs, gloo allows 30 s for the first collective of a group, but the compile times of the
    step that contains it may differ by a minute between processes.
    """
    if mesh.devices.flat[0].platform != "cpu" or replicated(mesh).is_fully_addressable:
        return
    for axes in (AXES[:1], AXES[1:], AXES):
        meet = jax.shard_map(
            functools.partial(jax.lax.psum, axis_name=axes),
            mesh=mesh,
            in_specs=PartitionSpec(AXES),
            out_specs=PartitionSpec(tuple(axis for axis in AXES if axis not in axes)),
        )
        jax.jit(meet)(replicate(np.zeros(mesh.size, np.float32), mesh)).block_until_ready()


def placed_shapes(tree: Any, sharding: NamedSharding) -> Any:
    """The `jax.ShapeDtypeStruct`s of a tree of arrays or shapes, all with this sharding."""
    place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    return jax.tree.map(place, tree)


def state_shardings(
    mesh: Mesh, tree: Any, rules: Rules = (), fsdp_min_elements: int = FSDP_MIN_ELEMENTS
) -> Any:
    """Returns a `NamedSharding` for each leaf of `tree` (arrays or `jax.ShapeDtypeStruct`s).

    The first rule whose regular expression matches the leaf's slash-joined path decides. Without
    one, a leaf is replicated, unless the fsdp axis is longer than 1 and the leaf has
    `fsdp_min_elements` or more: then its largest dimension that the axis divides is split.

    Raises:
      UserError: a rule does not fit a leaf that it decides on, or matches no path.
    """
    names = [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    for pattern, _ in rules:
        if not any(re.search(pattern, name) for name in names):
            raise UserError(f"mesh.rules: {pattern!r} matches no path, such as {names[-1]}")

    def leaf_sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = leaf_name(path)
        spec = next((spec for pattern, spec in rules if re.search(pattern, name)), None)
        if spec is None:
            spec = _fsdp_spec(leaf.shape, mesh.shape["fsdp"], fsdp_min_elements)
        sharding = NamedSharding(mesh, spec)
        try:
            sharding.shard_shape(leaf.shape)
        except (ValueError, IndexError) as error:
            axes = dict(mesh.shape)
            raise UserError(
                f"mesh.rules: {name} of shape {leaf.shape} cannot be split as {spec} over {axes}"
            ) from error
        return sharding

    return jax.tree_util.tree_map_with_path(leaf_sharding, tree)


def leaf_name(path: tuple[Any, ...]) -> str:
    """The slash-joined path of a leaf of a pytree, which rules are matched against."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def partition_rules(config: MeshConfig) -> Rules:
    """The configured rules for `state_shardings`."""
    return [
        (pattern, PartitionSpec(*(axis or None for axis in axes))) for pattern, axes in config.rules
    ]


def _fsdp_spec(shape: tuple[int, ...], axis_size: int, min_elements: int) -> PartitionSpec:
    divisible = [dim for dim, size in enumerate(shape) if size % axis_size == 0]
    if axis_size == 1 or math.prod(shape) < min_elements or not divisible:
        return PartitionSpec()
    largest = max(divisible, key=lambda dim: shape[dim])
    return PartitionSpec(*(None,) * largest, "fsdp")
