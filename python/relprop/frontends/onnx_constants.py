"""ONNX operators on values that are known: arithmetic on shapes, prepared weights.

:data:`TABLE` maps operator names to functions of the node and its input arrays. Each returns one
array; those of a size that only values tell are held below :data:`LARGEST_RESULT`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import onnx

from relprop.frontends.conversion import registering
from relprop.frontends.onnx_steps import Step, cast_target
from relprop.frontends.onnx_tensors import FLOATS, TYPES, Tensor, type_name

LARGEST_RESULT = 1 << 24
"""How many elements an operator may make that is given fewer."""

_Folder = Callable[..., Tensor]
TABLE: dict[str, _Folder] = {}
_folds = registering(TABLE)


def evaluate(step: Step, inputs: Sequence[Tensor | None]) -> Tensor:
    """The result of an operator of :data:`TABLE`; whatever goes wrong is a ValueError."""
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(TABLE[step.type](step, *inputs))
    except (TypeError, AttributeError, LookupError, ArithmeticError, MemoryError) as error:
        raise ValueError(f"it cannot be computed from its constants: {error}") from error
    step.storage.spend(result.nbytes)
    return result


@_folds("Constant")
def _constant(step: Step) -> Tensor:
    value = step.array("value")
    if value is not None:
        return value
    if len(step.attributes) != 1:
        raise ValueError("it holds no value")
    (attribute,) = step.attributes.values()
    if attribute.type in (onnx.AttributeProto.INT, onnx.AttributeProto.INTS):
        return np.array(onnx.helper.get_attribute_value(attribute), np.int64)
    if attribute.type in (onnx.AttributeProto.FLOAT, onnx.AttributeProto.FLOATS):
        return np.array(onnx.helper.get_attribute_value(attribute), np.float32)
    raise ValueError(f"its value is in {attribute.name!r}, which is not read")


def as_integers(values: Tensor | None) -> list[int]:
    """A list of integers that an operator is told by one of its inputs."""
    if values is None or values.dtype.kind not in "iu" or values.ndim > 1:
        raise ValueError("a list of integers must be of an integer type and have one axis")
    return [int(v) for v in values.reshape(-1)]


def resolve_shape(target: Sequence[int], shape: Sequence[int], allow_zero: bool) -> list[int]:
    """What Reshape makes of ``target``: 0 copies a size, one -1 takes what is left."""
    if target.count(-1) > 1 or any(size < -1 for size in target):
        raise ValueError(f"no shape is meant by {list(target)}")
    sizes = list(target)
    for axis, size in enumerate(sizes):
        if size == 0 and not allow_zero:
            if axis >= len(shape):
                raise ValueError(f"{list(target)} copies axis {axis} of shape {list(shape)}")
            sizes[axis] = shape[axis]
    total = math.prod(shape)
    if -1 in sizes:
        known = -math.prod(sizes)
        sizes[sizes.index(-1)] = total // known if known else 0
    if math.prod(sizes) != total:
        raise ValueError(f"shape {list(shape)} cannot be reshaped to {list(target)}")
    return sizes


def _bounded(shape: Sequence[int], *given: Tensor) -> tuple[int, ...]:
    """A shape of a result, unless it is negative or far larger than what the operator is given."""
    limit = max([LARGEST_RESULT, *(array.size for array in given)])
    if min(shape, default=0) < 0 or math.prod(shape) > limit:
        raise ValueError(f"a constant of shape {list(shape)} is too large")
    return tuple(shape)


# --- Elementwise -------------------------------------------------------------------------------

_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Equal": np.equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Sum": np.add,
    "Min": np.minimum,
    "Max": np.maximum,
}
_UNARY: dict[str, Callable[[Any], Any]] = {
    "Identity": np.asarray,
    "Dropout": np.asarray,
    "Neg": np.negative,
    "Abs": np.abs,
    "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal,
    "Exp": np.exp,
    "Cos": np.cos,
    "Sin": np.sin,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Not": np.logical_not,
}


@_folds(*_BINARY)
def _binary(step: Step, *inputs: Tensor) -> Tensor:
    _bounded(np.broadcast_shapes(*(array.shape for array in inputs)), *inputs)
    return reduce(_BINARY[step.type], inputs)


@_folds("Pow")
def _pow(step: Step, a: Tensor, b: Tensor) -> Tensor:
    _bounded(np.broadcast_shapes(a.shape, b.shape), a, b)
    return np.asarray(np.power(a, b), a.dtype)  # the base's, whatever the exponent's


@_folds("Div")
def _div(step: Step, a: Tensor, b: Tensor) -> Tensor:
    _bounded(np.broadcast_shapes(a.shape, b.shape), a, b)
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    if not b.all():
        raise ValueError("it divides by zero")
    if a.dtype.kind == "u":
        return np.asarray(a // b)
    return np.asarray(np.abs(a) // np.abs(b) * np.sign(a) * np.sign(b))  # towards zero, as in C


@_folds("Mod")
def _mod(step: Step, a: Tensor, b: Tensor) -> Tensor:
    _bounded(np.broadcast_shapes(a.shape, b.shape), a, b)
    if not b.all():
        raise ValueError("it divides by zero")
    return np.asarray(np.fmod(a, b) if step.integer("fmod", 0) else np.mod(a, b))


@_folds(*_UNARY)
def _unary(step: Step, x: Tensor, *settings: Tensor) -> Tensor:
    return np.asarray(_UNARY[step.type](x))


@_folds("Where")
def _where(step: Step, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    _bounded(np.broadcast_shapes(condition.shape, a.shape, b.shape), condition, a, b)
    return np.where(condition, a, b)


@_folds("Cast")
def _cast(step: Step, x: Tensor) -> Tensor:
    kind = cast_target(step)
    if kind not in TYPES and kind not in FLOATS:
        raise ValueError(f"it casts to {type_name(kind)}, which is not read")
    return x.astype(np.dtype(TYPES.get(kind, "<f4")).newbyteorder("="))


@_folds("CastLike")
def _cast_like(step: Step, x: Tensor, like: Tensor) -> Tensor:
    return x.astype(like.dtype)


# --- Shapes ------------------------------------------------------------------------------------


@_folds("Shape")
def _shape(step: Step, x: Tensor) -> Tensor:
    return part_of_shape(step, x.shape)


def part_of_shape(step: Step, shape: Sequence[int]) -> Tensor:
    """What Shape makes of a value of that shape."""
    return np.array(
        shape[slice(step.integer("start", 0), step.integer("end", len(shape)))], np.int64
    )


@_folds("Size")
def _size(step: Step, x: Tensor) -> Tensor:
    return np.array(x.size, np.int64)


@_folds("Reshape")
def _reshape(step: Step, x: Tensor, target: Tensor) -> Tensor:
    sizes = as_integers(target)
    return x.reshape(resolve_shape(sizes, x.shape, bool(step.integer("allowzero", 0))))


@_folds("Flatten")
def _flatten(step: Step, x: Tensor) -> Tensor:
    axis = step.integer("axis", 1)
    axis += x.ndim if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@_folds("Transpose")
def _transpose(step: Step, x: Tensor) -> Tensor:
    return np.transpose(x, step.integers("perm"))


@_folds("Squeeze")
def _squeeze(step: Step, x: Tensor, axes: Tensor | None = None) -> Tensor:
    listed = step.integers("axes") if axes is None else as_integers(axes)
    return x.squeeze(None if listed is None else tuple(listed))


@_folds("Unsqueeze")
def _unsqueeze(step: Step, x: Tensor, axes: Tensor | None = None) -> Tensor:
    listed = step.integers("axes") if axes is None else as_integers(axes)
    return np.expand_dims(x, tuple(listed or ()))


@_folds("Expand")
def _expand(step: Step, x: Tensor, target: Tensor) -> Tensor:
    shape = np.broadcast_shapes(x.shape, _bounded(as_integers(target), x))
    return np.broadcast_to(x, _bounded(shape, x))


@_folds("Tile")
def _tile(step: Step, x: Tensor, counts: Tensor) -> Tensor:
    times = as_integers(counts)
    if len(times) != x.ndim:
        raise ValueError(f"it repeats along {len(times)} axes of {x.ndim}")
    _bounded([n * size for n, size in zip(times, x.shape)], x)
    return np.tile(x, times)


@_folds("Trilu")
def _trilu(step: Step, x: Tensor, k: Tensor | None = None) -> Tensor:
    diagonal = 0 if k is None else int(k.reshape(()))
    return np.triu(x, diagonal) if step.integer("upper", 1) else np.tril(x, diagonal)


@_folds("ConstantOfShape")
def _constant_of_shape(step: Step, target: Tensor) -> Tensor:
    value = step.array("value")
    fill = np.zeros(1, np.float32) if value is None else value
    if fill.size != 1:
        raise ValueError(f"it is filled with {fill.size} values instead of one")
    return np.full(_bounded(as_integers(target)), fill.reshape(()))


@_folds("Range")
def _range(step: Step, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    first, last, by = (array.reshape(()).item() for array in (start, limit, delta))
    count = max(math.ceil((last - first) / by), 0)
    (size,) = _bounded((count,))
    return np.asarray(first + np.arange(size) * by, start.dtype)


# --- Parts and sums ----------------------------------------------------------------------------


@_folds("Concat")
def _concat(step: Step, *inputs: Tensor) -> Tensor:
    _bounded((sum(array.size for array in inputs),))
    return np.concatenate(inputs, step.integer("axis", 0))


@_folds("Gather")
def _gather(step: Step, x: Tensor, indices: Tensor) -> Tensor:
    axis = step.integer("axis", 0)
    axis += x.ndim if axis < 0 else 0
    _bounded((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x, indices)
    return np.asarray(np.take(x, indices, axis))


@_folds("Slice")
def _slice(step: Step, x: Tensor, *bounds: Tensor) -> Tensor:
    parts = [slice(None)] * x.ndim
    for axis, part in slices(step, bounds, x.ndim).items():
        parts[axis] = part
    return x[tuple(parts)]


def slices(step: Step, bounds: Sequence[Tensor | None], rank: int) -> dict[int, slice]:
    """Which part of which axis a Slice takes."""
    if step.opset < 10:
        listed = [step.integers(name) for name in ("starts", "ends", "axes")]
        starts, ends, axes = (list(v) if v is not None else None for v in listed)
        steps = None
    else:
        given = [None if v is None else as_integers(v) for v in bounds] + [None] * 4
        starts, ends, axes, steps = given[:4]
    if starts is None or ends is None:
        raise ValueError("it has no starts or no ends")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise ValueError("its starts, ends, axes and steps are not equally many")
    if not all(-rank <= axis < rank for axis in axes) or 0 in steps:
        raise ValueError(f"axes {axes} or steps {steps} do not fit {rank} axes")
    taken = {}
    for axis, start, end, step_size in zip(axes, starts, ends, steps):
        # Backwards, an end below every index means: to the very first.
        stop = None if step_size < 0 and end <= -(2**31) + 1 else end
        taken[axis % rank] = slice(start, stop, step_size)
    return taken


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceSum": np.sum,
    "ReduceProd": np.prod,
    "ReduceMin": np.min,
    "ReduceMax": np.max,
    "ReduceMean": np.mean,
}


@_folds(*_REDUCTIONS)
def _reduction(step: Step, x: Tensor, axes: Tensor | None = None) -> Tensor:
    listed = step.integers("axes") if axes is None else as_integers(axes)
    if not listed and step.integer("noop_with_empty_axes", 0):
        return x
    if step.type == "ReduceMean" and x.size == 0:
        raise ValueError("it takes the mean of no values")
    result = _REDUCTIONS[step.type](
        x, axis=tuple(listed) if listed else None, keepdims=bool(step.integer("keepdims", 1))
    )
    return np.asarray(result, x.dtype)


@_folds("MatMul")
def _matmul(step: Step, a: Tensor, b: Tensor) -> Tensor:
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError("only matrices are multiplied")
    _bounded((a.shape[0], b.shape[1]), a, b)
    return np.asarray(a @ b)
