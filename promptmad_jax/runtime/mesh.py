"""The device mesh and where each array of a run lives on it."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from promptmad_jax.runtime.errors import UserError

AXES = ("data", "fsdp")
FSDP_MIN_ELEMENTS = 2**16

Rules = Sequence[tuple[str, PartitionSpec]]


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Number of devices along each mesh axis; -1 (at most once) is all that the other leaves."""

    data: int = -1
    fsdp: int = 1


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh with axes ("data", "fsdp") over `devices` (default: all devices of the run).

    A single process may ask for fewer devices than there are and gets the first of them. Several
    processes must use every device, for each holds a part of the batch.

    Raises:
      UserError: the axes do not fit the devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = _mesh_shape(config, len(devices))
    size = math.prod(shape)
    if size > len(devices) or (size < len(devices) and jax.process_count() > 1):
        raise UserError(
            f"mesh data={config.data} fsdp={config.fsdp} needs {size} devices, but this run has "
            f"{len(devices)}; set mesh.data=-1 to use all that there are"
        )
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 2, devices=devices[:size])


def _mesh_shape(config: MeshConfig, device_count: int) -> tuple[int, int]:
    shape = (config.data, config.fsdp)
    if any(size == 0 or size < -1 for size in shape) or shape == (-1, -1):
        raise UserError(
            f"mesh data={config.data} fsdp={config.fsdp}: each must be a positive number, and "
            "one of them may be -1 (all that is left)"
        )
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
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first dimension [B, ...] split over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def state_shardings(
    mesh: Mesh, tree: Any, rules: Rules = (), fsdp_min_elements: int = FSDP_MIN_ELEMENTS
) -> Any:
    """A `NamedSharding` for each leaf of `tree` (arrays or `jax.ShapeDtypeStruct`s).

    The first rule whose regular expression is found in the leaf's slash-joined path
    (`params/reconstructor/encoder_0/kernel`) decides. Without one, a leaf is replicated; but where
    the fsdp axis is longer than 1, a leaf of `fsdp_min_elements` or more is split along its largest
    dimension that the axis divides.

    Raises:
      ValueError: a rule names more dimensions than its leaf has.
    """

    def leaf_sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = _rule_spec(name, rules)
        if spec is None:
            spec = _fsdp_spec(leaf.shape, mesh.shape["fsdp"], fsdp_min_elements)
        if len(spec) > len(leaf.shape):
            raise ValueError(f"{name} has shape {leaf.shape}, too few dimensions for {spec}")
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(leaf_sharding, tree)


def _rule_spec(name: str, rules: Rules) -> PartitionSpec | None:
    for pattern, spec in rules:
        if re.search(pattern, name):
            return spec
    return None


def _fsdp_spec(shape: tuple[int, ...], axis_size: int, min_elements: int) -> PartitionSpec:
    divisible = [dim for dim, size in enumerate(shape) if size % axis_size == 0]
    if axis_size == 1 or math.prod(shape) < min_elements or not divisible:
        return PartitionSpec()
    largest = max(divisible, key=lambda dim: shape[dim])
    return PartitionSpec(*(None,) * largest, "fsdp")
