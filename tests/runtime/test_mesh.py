"""Mesh shapes and the table that places the state, on eight CPU devices."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from promptmad_jax.runtime import mesh as mesh_lib
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.mesh import MeshConfig, make_mesh


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (MeshConfig(), (8, 1)),
        (MeshConfig(-1, 2), (4, 2)),
        (MeshConfig(2, -1), (2, 4)),
        (MeshConfig(2, 4), (2, 4)),
        (MeshConfig(2, 1), (2, 1)),
    ],
)
def test_mesh_shape(config, shape):
    mesh = make_mesh(config)
    assert (mesh.axis_names, mesh.devices.shape) == (("data", "fsdp"), shape)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(16, 1), "needs 16 devices, but this run has 8"),
        (MeshConfig(-1, 3), "8 devices cannot be split into groups of 3"),
    ],
)
def test_mesh_that_does_not_fit(config, message):
    with pytest.raises(UserError, match=message):
        make_mesh(config)


def test_several_processes_must_use_every_device(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="needs 4 devices"):
        make_mesh(MeshConfig(4, 1))


def test_batch_is_split_over_all_devices():
    mesh = make_mesh(MeshConfig(-1, 2))
    batch = jax.device_put(jnp.zeros((16, 3)), mesh_lib.batch_sharding(mesh))
    assert {shard.data.shape for shard in batch.addressable_shards} == {(2, 3)}
    assert len({shard.index[0].start for shard in batch.addressable_shards}) == 8
    whole = jax.device_put(jnp.zeros((16, 3)), mesh_lib.replicated(mesh))
    assert whole.is_fully_replicated


def abstract(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def specs(fsdp, tree, rules=()):
    mesh = make_mesh(MeshConfig(-1, fsdp))
    shardings = mesh_lib.state_shardings(mesh, tree, rules, fsdp_min_elements=64)
    return jax.tree.map(lambda sharding: sharding.spec, shardings)


def test_state_is_replicated_without_fsdp():
    assert specs(1, {"kernel": abstract(64, 64)}) == {"kernel": P()}


def test_fsdp_splits_the_largest_dimension_that_divides():
    shapes = {"wide": (8, 64), "odd": (65, 8), "indivisible": (9, 9), "small": (2, 4)}
    tree = {name: abstract(*shape) for name, shape in shapes.items()}
    tree["key"] = jax.eval_shape(lambda: jax.random.key(0))
    expected = dict.fromkeys(tree, P()) | dict.fromkeys(("wide", "odd"), P(None, "fsdp"))
    assert specs(2, tree) == expected


def test_first_matching_rule_decides():
    tree = {"params": {"out": {"kernel": abstract(8, 16)}, "in": {"kernel": abstract(16, 8)}}}
    rules = [("params/out/kernel$", P("fsdp")), ("out", P(None, "data")), ("in/", P())]
    assert specs(2, tree, rules) == {
        "params": {"out": {"kernel": P("fsdp")}, "in": {"kernel": P()}}
    }


@pytest.mark.parametrize(
    ("leaf", "pattern", "spec", "message"),
    [
        (abstract(8), "bias", P(None, "fsdp"), r"bias of shape \(8,\) cannot be split"),
        (abstract(9), "bias", P("fsdp"), r"bias of shape \(9,\) cannot be split"),
        (abstract(8), "encodr/", P("fsdp"), r"'encodr/' matches no path, such as bias"),
    ],
)
def test_rules_that_do_not_fit(leaf, pattern, spec, message):
    with pytest.raises(UserError, match=message):
        specs(2, {"bias": leaf}, [(pattern, spec)])


def test_rules_of_a_config():
    rules = (("lin1/kernel$", ("", "fsdp")), ("", ()))
    assert mesh_lib.partition_rules(MeshConfig(rules=rules)) == [
        ("lin1/kernel$", P(None, "fsdp")),
        ("", P()),
    ]
