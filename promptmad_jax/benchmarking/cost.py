"""Floating-point operations and memory traffic of a program, by XLA's cost analysis.

XLA counts the body of a loop once, whatever its length. The bodies of `lax.scan` and `lax.map` are
therefore analysed again on their own, and added once per turn that XLA leaves out.
"""

from typing import Any

import jax
import numpy as np
from jax.extend import core
from jax.interpreters.partial_eval import dce_jaxpr

# float [2]: floating-point operations, a multiply-add being two, and bytes that operations read and
# write, as if there were no caches.
Cost = np.ndarray


def program_cost(traced: Any, compiled: Any, devices: int = 1) -> Cost:
    """The cost of a call, over all devices.

    Args:
        traced: `jax.jit(f).trace(...)`.
        compiled: `traced.lower().compile()`.
        devices: number of devices that the compiled program is split over.
    """
    once = _analysis(traced.lower())
    # Lowering drops unused results, and with them their loops.
    jaxpr = traced.jaxpr.jaxpr
    live, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)
    whole = once + _missed(live)
    # Only the compiled program shows the bytes that fusion saves; further turns save as many.
    _, accessed = _analysis(compiled) * devices
    return np.array([whole[0], accessed * whole[1] / once[1]])


def _missed(jaxpr: Any) -> Cost:
    """The cost of the turns of inner loops that XLA leaves out."""
    total = np.zeros(2)
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            total += _missed_turns(equation.params)
        elif equation.primitive.name == "cond":
            branches = [_missed(branch.jaxpr) for branch in equation.params["branches"]]
            total += max(branches, key=lambda cost: cost[0])
        else:
            for inner in core.jaxprs_in_params(equation.params):
                total += _missed(inner)
    return total


def _missed_turns(params: dict[str, Any]) -> Cost:
    body, length, unroll = params["jaxpr"], params["length"], params["unroll"]
    trips, rest = divmod(length, unroll) if unroll else (0, length)
    # JAX repeats the body `unroll` times in the loop, and appends the rest.
    counted = min(trips, 1) * unroll + rest
    inside = _missed(body.jaxpr)
    if counted == length:
        return inside * length
    lowered = jax.jit(core.jaxpr_as_fun(body)).trace(*map(_shape, body.in_avals)).lower()
    return inside * length + _analysis(lowered) * (length - counted)


def _shape(aval: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)


def _analysis(stage: Any) -> Cost:
    found = stage.cost_analysis() or {}
    return np.array([found.get(name, 0.0) for name in ("flops", "bytes accessed")], float)
