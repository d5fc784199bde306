"""Operations and bytes of a program by XLA's cost analysis, with its loops counted in full.

XLA counts the body of a loop once, however often it runs. The bodies of `lax.scan` and `lax.map`
are therefore analysed again on their own and added as often as they were missed.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.extend import core
from jax.interpreters.partial_eval import dce_jaxpr


class Cost(NamedTuple):
    """flops: floating-point operations; a multiply-add is two. accessed: bytes that the program's
    operations read and write, each on its own account, whatever the caches save."""

    flops: float
    accessed: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.accessed + other.accessed)

    def __sub__(self, other: "Cost") -> "Cost":
        return self + other * -1.0

    def __mul__(self, factor: float) -> "Cost":
        return Cost(self.flops * factor, self.accessed * factor)


class Roof(NamedTuple):
    """gflops: 1e9 operations a second. gbytes: 1e9 bytes a second. 0 where it is not known."""

    gflops: float = 0.0
    gbytes: float = 0.0


def program_cost(traced: Any, compiled: Any, devices: int = 1) -> Cost:
    """The cost of one call, over all devices.

    Args:
        traced: `jax.jit(f).trace(...)`. compiled: `traced.lower().compile()`.
        devices: how many the compiled program is split over; its bytes are those of one.
    """
    once = _analysis(traced.lower())
    # Lowering leaves out what no result needs; a loop among that was not counted even once.
    jaxpr = traced.jaxpr.jaxpr
    live, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)
    whole = once + _missed(live)
    # Only the compiled program knows which bytes fusion saves; a loop's further turns save as many.
    accessed = _analysis(compiled).accessed * devices
    return Cost(whole.flops, accessed * whole.accessed / once.accessed)


def _missed(jaxpr: Any) -> Cost:
    """What the loops below cost besides the one turn that XLA counts."""
    total = Cost(0.0, 0.0)
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            total += _missed_turns(equation.params)
        elif equation.primitive.name == "cond":
            branches = [_missed(branch.jaxpr) for branch in equation.params["branches"]]
            total += max(branches, key=lambda cost: cost.flops)
        else:
            for inner in _inner(equation.params):
                total += _missed(inner)
    return total


def _missed_turns(params: dict[str, Any]) -> Cost:
    body, length, unroll = params["jaxpr"], params["length"], params["unroll"]
    trips, rest = divmod(length, unroll) if unroll else (0, length)
    # JAX writes `unroll` bodies into the loop, and the rest behind it.
    counted = min(trips, 1) * unroll + rest
    inside = _missed(body.jaxpr)
    if counted == length:
        return inside * length
    lowered = jax.jit(core.jaxpr_as_fun(body)).trace(*map(_shape, body.in_avals)).lower()
    return inside * length + _analysis(lowered) * (length - counted)


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(item, "eqns"):
                yield item
            elif hasattr(item, "jaxpr") and hasattr(item.jaxpr, "eqns"):
                yield item.jaxpr


def _shape(aval: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)


def _analysis(stage: Any) -> Cost:
    found = stage.cost_analysis() or {}
    return Cost(float(found.get("flops", 0.0)), float(found.get("bytes accessed", 0.0)))
