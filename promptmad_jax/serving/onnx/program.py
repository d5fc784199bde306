"""A detector's program in ONNX, by jax2onnx, for machines without JAX."""

import functools
import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from promptmad_jax.runtime.errors import UserError

_CALLS = ("jit", "custom_jvp_call", "custom_vjp_call")
_TOLERANCE = 1e-4  # mean of a map's errors, relative to its highest value


def convert(function: Callable, arrays: Mapping[str, np.ndarray], image_size: int) -> bytes:
    """The ONNX model of one image, compared with JAX on noise.

    Its inputs are `images` uint8 [1, S, S, 3] and `class_ids` int32 [1]; its outputs the maps by
    name, [1, S, S] each, and `description` [1, D].

    Args:
        function: of arrays, images and class ids, as in an artifact.

    Raises:
        UserError: jax2onnx is missing, or cannot convert this detector.
    """
    if find_spec("jax2onnx") is None:
        raise UserError('--onnx needs more packages: pip install "promptmad_jax[onnx]"')
    from jax2onnx import to_onnx

    # jax2onnx 0.13 mixes up float16 and float32 in what it gathers.
    wide = {n: x.astype(np.float32) if x.dtype == np.float16 else x for n, x in arrays.items()}
    shapes = (
        jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.uint8),
        jax.ShapeDtypeStruct((1,), jnp.int32),
    )
    closed = functools.partial(function, jax.tree.map(jnp.asarray, wide))
    trace, (maps, _) = jax.make_jaxpr(closed, return_shape=True)(*shapes)
    names = [*sorted(maps), "description"]
    logging.disable(logging.WARNING)  # jax2onnx tells of parts of its own that do not load.
    try:
        model = to_onnx(
            lambda *inputs: tuple(_evaluate(trace.jaxpr, trace.consts, *inputs)),
            inputs=shapes,
            input_names=("images", "class_ids"),
            output_names=names,
        ).SerializeToString()
    except NotImplementedError as error:
        raise UserError(f"--onnx: jax2onnx cannot convert this detector: {error}") from error
    finally:
        logging.disable(logging.NOTSET)
    _check(model, closed, image_size)
    return model


def _check(model: bytes, function: Callable, image_size: int) -> None:
    import onnxruntime

    shape = (1, image_size, image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    inputs = {"images": images, "class_ids": np.zeros(1, np.int32)}
    onnxruntime.set_default_logger_severity(3)  # Not of constants that nothing uses.
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    expected = jax.tree.leaves(jax.jit(function)(*inputs.values()))
    for ours, theirs in zip(expected, session.run(None, inputs), strict=True):
        # The mean: rounding decides between patches of the memory that are equally near.
        error = float(np.abs(ours - theirs).mean() / np.abs(ours).max())
        if not error <= _TOLERANCE:
            raise UserError(f"--onnx: jax2onnx converts this detector with errors of {error:.1g}")


def _evaluate(jaxpr: core.Jaxpr, consts, *inputs) -> list:
    """Evaluates a trace without what jax2onnx does not know: `platform_dependent`, whose default is
    taken, and slices gathered with an index per axis."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *inputs), strict=True))
    read = lambda atom: atom.val if isinstance(atom, core.Literal) else values[atom]
    for equation in jaxpr.eqns:
        given, params = list(map(read, equation.invars)), equation.params
        match equation.primitive.name:
            case name if name in _CALLS:
                inner = params["jaxpr" if name == "jit" else "call_jaxpr"]
                results = _evaluate(inner.jaxpr, inner.consts, *given)
            case "platform_index":
                results = [params["platforms"].index(None)]
            case "cond" if isinstance(given[0], int):
                inner = params["branches"][given[0]]
                results = _evaluate(inner.jaxpr, inner.consts, *given[1:])
            case "gather":
                results = [_gather(equation, *given)]
            case _:
                results = equation.primitive.bind(*given, **params)
                results = results if equation.primitive.multiple_results else [results]
        values.update(zip(equation.outvars, results, strict=True))
    return list(map(read, jaxpr.outvars))


def _gather(equation, operand, indices):
    """Rows [n, ...] of an array, by one index into its flattened leading axes."""
    shape, sizes = operand.shape, equation.params["slice_sizes"]
    dimensions, result = equation.params["dimension_numbers"], equation.outvars[0].aval.shape
    axes = next(axis for axis in reversed(range(len(shape))) if sizes[axis] != shape[axis]) + 1
    offsets = tuple(range(len(result) - len(dimensions.offset_dims), len(result)))
    leading = sizes[:axes] == (1,) * axes
    if not leading or dimensions.offset_dims != offsets or dimensions.operand_batching_dims:
        raise NotImplementedError(f"gather of {sizes} from {shape}")
    row = 0
    for axis, place in zip(range(axes), dimensions.start_index_map, strict=False):
        if axis != place:
            raise NotImplementedError(f"gather with indices into {dimensions.start_index_map}")
        row = row * shape[axis] + jnp.clip(indices[..., axis], 0, shape[axis] - 1)
    rows = jnp.take(operand.reshape(-1, *shape[axes:]), row.reshape(-1), axis=0, mode="clip")
    return rows.reshape(result)
