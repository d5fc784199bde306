"""Reading a compiled program's text."""

import jax
import jax.numpy as jnp
import pytest

from promptmad_jax.dry_run.collectives import Collective, find_collectives
from promptmad_jax.runtime.mesh import MeshConfig, batch_sharding, make_mesh, replicated

PROGRAM = """
HloModule jit_f, num_partitions=8

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%body (turn: (f32[4])) -> (f32[4]) {
  %inner = f32[4]{0} all-reduce(%a), replica_groups=[2,4]<=[8], to_apply=%add, \
metadata={op_name="jit(f)/while/body/closed_call/reduce_sum"}
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %one = (f32[16,4]{1,0}, /*index=1*/bf16[3]{0:T(8,128)}, f32[]) all-reduce(%a, %b, %c), \
replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add, metadata={op_name="jit(f)/reduce_sum"}
  %two = (f32[2]{0}, f32[16]{0}) all-gather-start(%a), replica_groups=[1,8]<=[8], dimensions={0}
  %got = f32[16]{0} all-gather-done(%two)
  %three = pred[2,8]{1,0} reduce-scatter(%a), \
replica_groups=mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_0'}, to_apply=%add
  %four = u8[10]{0} collective-permute(%a), source_target_pairs={{0,1},{1,0}}
  ROOT %loop = (f32[4]) while(%tuple), condition=%test, body=%body
}
"""


def test_what_starts_is_counted_once():
    arrays = "f32[16]{0}, f32[4]{0}"
    groups = "replica_groups={{0,1}}, to_apply=%add"
    texts = (
        f"%a = (({arrays}), ({arrays})) all-reduce-start(%x, %y), {groups}",
        f"%a = ({arrays}) all-reduce-start(%x, %y), {groups}",
    )
    for text in texts:
        (found,) = find_collectives(text)
        assert found.shapes == (("f32", (16,)), ("f32", (4,)))


def test_every_form_is_read():
    inner, one, two, three, four = find_collectives(PROGRAM)
    shapes = (("f32", (16, 4)), ("bf16", (3,)), ("f32", ()))
    assert one == Collective("all-reduce", shapes, 8, "jit(f)/reduce_sum")
    assert one.nbytes == 4 * 64 + 2 * 3 + 4
    assert (two.kind, two.shapes, two.devices) == ("all-gather", (("f32", (16,)),), 8)
    assert (three.kind, three.devices, three.nbytes) == ("reduce-scatter", 4, 16)
    assert (four.kind, four.devices, four.nbytes) == ("collective-permute", 0, 10)
    assert inner.in_loop and not any(other.in_loop for other in (one, two, three, four))


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("all-reduce", 2 * 3 / 4 * 400),
        ("all-gather", 3 / 4 * 400),
        ("all-to-all", 3 / 4 * 400),
        ("reduce-scatter", 3 * 400),
        ("collective-permute", 400),
    ],
)
def test_bytes_sent_in_a_ring(kind, sent):
    assert Collective(kind, (("f32", (100,)),), 4).sent() == sent


@pytest.mark.parametrize("steps", [0, 5])
def test_the_gradient_of_a_layer_is_one_all_reduce(steps):
    mesh = make_mesh(MeshConfig())
    whole, split = replicated(mesh), batch_sharding(mesh)
    gradient = jax.grad(lambda weight, x: jnp.square(x @ weight).mean())

    def step(weight, x):
        if not steps:
            return gradient(weight, x)
        return jax.lax.fori_loop(0, steps, lambda _, w: w - gradient(w, x), weight)

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((6, 5), (16, 6))]
    step = jax.jit(step, in_shardings=(whole, split), out_shardings=whole)
    (found,) = find_collectives(step.lower(*shapes).compile().as_text())
    assert (found.kind, found.nbytes, found.devices) == ("all-reduce", 4 * 30, 8)
    assert found.in_loop == bool(steps)


def test_a_gather_of_the_batch_is_seen():
    mesh = make_mesh(MeshConfig())
    spread = jax.jit(lambda x: x, out_shardings=replicated(mesh))
    x = jax.ShapeDtypeStruct((16, 6), jnp.float32, sharding=batch_sharding(mesh))
    (found,) = find_collectives(spread.lower(x).compile().as_text())
    assert (found.kind, found.nbytes) == ("all-gather", 4 * 96)
