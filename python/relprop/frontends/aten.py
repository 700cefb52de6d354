"""One small function per aten operator: what it is in the Graph.

:data:`TABLE` maps operator names to these functions. Each takes a :class:`Call`, adds nodes to
its Graph and returns the name of the last (a list where torch returns several results), or
raises :class:`Unsupported` with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import fx

from relprop.frontends import einsum
from relprop.frontends.conversion import BATCH_AXIS, Unsupported, clipping, maximum_over, unique
from relprop.graph import (
    Activation,
    AdaptiveAvgPool,
    Add,
    Array,
    AvgPool,
    BatchNorm,
    Concat,
    Constant,
    Conv,
    ConvTranspose,
    Dense,
    Embedding,
    Function,
    Graph,
    LocalResponseNorm,
    Maximum,
    MaxPool,
    Mean,
    Mul,
    Operator,
    Pad,
    Padding,
    Pair,
    Permute,
    PReLU,
    Reshape,
    Shape,
    Sizes,
    Slice,
    Softmax,
    UpsampleBilinear2d,
    UpsampleNearest2d,
)


def is_data(value: Any) -> bool:
    """Whether a value comes from the input: it is the name of a node then, or a list of such."""
    if isinstance(value, (list, tuple)):
        return any(is_data(v) for v in value)
    return isinstance(value, str)


def operator_name(target: Any) -> str:
    """The operator's key in the table; its overloads share it."""
    if isinstance(target, torch._ops.OpOverload):
        return str(target._schema.name).removeprefix("aten::")
    return getattr(target, "__name__", str(target))


def module_of(node: fx.Node) -> tuple[str, str]:
    """Path and class of the module that called the operator, where torch recorded them."""
    for path, kind in reversed(list(node.meta.get("nn_module_stack", {}).values())):
        if path != "_empty_nn_module_stack_from_metadata_hook":
            kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
            return path.split("@")[0], kind  # "relu@1" is the second call of "relu"
    return "", ""


def to_array(name: str, tensor: torch.Tensor) -> Array:
    """A tensor as a float32 array of the Graph's own."""
    if tensor.is_complex() or tensor.is_quantized:
        raise Unsupported(f"{name} is of type {tensor.dtype}")
    array = tensor.detach().to(device="cpu", dtype=torch.float32).numpy().copy()
    if not np.isfinite(array).all():
        raise Unsupported(f"{name} holds NaN or infinite values")
    return cast(Array, array)


def bind(node: fx.Node) -> dict[str, Any]:
    """Arguments by name, with the schema's defaults."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return {**dict(zip(("input", "index"), node.args)), **node.kwargs}
    bound = {}
    for position, argument in enumerate(node.target._schema.arguments):
        if position < len(node.args):
            bound[argument.name] = node.args[position]
        else:
            bound[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return bound


class Call:
    """One traced operator: its arguments by name, and the Graph to add its nodes to.

    ``values`` holds what each traced value became (see :func:`is_data`), ``labels`` the names
    of those that are parameters.
    """

    def __init__(
        self,
        node: fx.Node,
        graph: Graph,
        values: Mapping[fx.Node, Any],
        labels: Mapping[fx.Node, str],
    ) -> None:
        self.node = node
        self.graph = graph
        self.labels = labels
        self.raw = bind(node)
        self.arguments = {
            name: fx.node.map_arg(value, values.__getitem__) for name, value in self.raw.items()
        }
        result = node.meta["val"]
        self.shape: Shape = tuple(result.shape[1:]) if isinstance(result, torch.Tensor) else ()

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    @property
    def name(self) -> str:
        """The module's path for its own operator, "path.operator" for a functional call."""
        path, kind = module_of(self.node)
        own = kind.startswith("torch.nn.modules.") or any(
            self.labels.get(source, "").rpartition(".")[0] == path
            for source in self.node.all_input_nodes
        )
        if path and own:
            return path
        return f"{path}.{operator_name(self.node.target)}".lstrip(".")

    @property
    def input(self) -> str:
        """The Graph node that is the first argument."""
        return self.data(next(iter(self.arguments)))

    @property
    def input_shape(self) -> Shape:
        """Its shape without the batch axis."""
        return self.graph[self.input].shape

    def data(self, name: str) -> str:
        """The Graph node that an argument is."""
        self.require(is_data(self[name]), f"{name} does not depend on the input")
        return cast(str, self[name])

    def optional_parameter(self, name: str) -> Array | None:
        """An argument that must not depend on the input, as an array; None stays None."""
        if self[name] is None:
            return None
        self.require(not is_data(self[name]), f"{name} is computed from the input")
        return to_array(name, self[name])

    def parameter(self, name: str, axes: int | None = None) -> Array:
        """An argument that must be there, with so many axes, and not depend on the input."""
        array = self.optional_parameter(name)
        assert array is not None, name
        wrong = axes is not None and array.ndim != axes
        self.require(not wrong, f"{name} must have {axes} axes, not {array.ndim}")
        return array

    def operand(self, name: str, scale: float = 1.0) -> str:
        """An argument as a node, what it is already or a new Constant, times ``scale``."""
        value = self[name]
        if is_data(value):
            if scale == 1.0:
                return cast(str, value)
            return self.scaled(cast(str, value), name, scale)
        tensor = torch.as_tensor(value)
        if tensor.ndim == len(self.shape) + 1:
            self.require(tensor.shape[0] == 1, f"{name} has a value of its own for each sample")
            tensor = tensor[0]
        return self.constant(name, to_array(name, tensor) * np.float32(scale))

    def scaled(self, node: str, name: str, scale: float) -> str:
        """A node times a number; ``name`` says what of this operator it is."""
        return self.emit(Mul(), node, self.constant(f"{name}.scale", np.float32(scale)))

    def constant(self, argument: str, value: Any) -> str:
        """A Constant, named like the parameter that the argument is, else like the argument."""
        source = self.raw.get(argument)
        label = self.labels.get(source) if isinstance(source, fx.Node) else None
        name = label or f"{module_of(self.node)[0]}.{argument}".lstrip(".")
        return self.graph.add(unique(self.graph, name), Constant(np.asarray(value, np.float32)))

    def axis(self, dim: int, rank: int | None = None) -> int:
        """A torch axis without the batch, for a tensor of ``rank`` axes with it."""
        rank = len(self.input_shape) + 1 if rank is None else rank
        self.require(dim % rank != 0, BATCH_AXIS)
        return dim % rank - 1

    def require(self, condition: bool, reason: str) -> None:
        """Give up with a reason unless a condition holds."""
        if not condition:
            raise Unsupported(reason)

    def require_image(self) -> None:
        """Give up unless the input is a batch of images."""
        self.require(
            len(self.input_shape) == 3,
            f"one sample must be (channels, height, width), not {self.input_shape}",
        )

    def first(self, name: str) -> str | list[str | None]:
        """The node as the result, or as the first of several of which the others are not there."""
        results = self.node.meta["val"]
        return name if isinstance(results, torch.Tensor) else [name, *[None] * (len(results) - 1)]

    def emit(self, operator: Operator, *inputs: str) -> str:
        """Add a node that reads ``inputs``, by default this call's input."""
        return self.graph.add(unique(self.graph, self.name), operator, inputs or (self.input,))


# --- The table ---------------------------------------------------------------------------------

_Converter = Callable[[Call], Any]
TABLE: dict[str, _Converter] = {}


def _converts(*names: str) -> Callable[[_Converter], _Converter]:
    def register(function: _Converter) -> _Converter:
        TABLE.update(dict.fromkeys(names, function))
        return function

    return register


def _sizes(values: Any, axes: int) -> Sizes:
    """A number per spatial axis; torch takes one for all of them as well."""
    values = [values] if isinstance(values, int) else list(values)
    return tuple(int(v) for v in (values * axes if len(values) == 1 else values))


def _padding(values: Any, axes: int) -> Padding:
    return tuple((size, size) for size in _sizes(values, axes))


def _spatial_axes(call: Call) -> int:
    """How many axes a pool's name says that it works along."""
    return int(operator_name(call.node.target).partition("pool")[2][0])


@_converts("conv1d", "conv2d", "conv3d", "convolution")
def _conv(call: Call) -> Any:
    if call["transposed"]:
        return _conv_transpose(call)
    weight = call.parameter("weight")
    axes = weight.ndim - 2
    dilation = _sizes(call["dilation"], axes)
    if call["padding"] == "valid":
        padding: Padding = ()
    elif call["padding"] == "same":
        spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:])]
        padding = tuple((span // 2, span - span // 2) for span in spans)
    else:
        padding = _padding(call["padding"], axes)
    stride = _sizes(call["stride"], axes)
    return call.emit(
        Conv(weight, call.optional_parameter("bias"), stride, padding, dilation, call["groups"])
    )


@_converts("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(call: Call) -> str:
    weight = call.parameter("weight")
    axes = weight.ndim - 2
    return call.emit(
        ConvTranspose(
            weight,
            call.optional_parameter("bias"),
            _sizes(call["stride"], axes),
            _padding(call["padding"], axes),
            _sizes(call["output_padding"], axes),
            _sizes(call["dilation"], axes),
            call["groups"],
        )
    )


def _resizing(call: Call, size: Pair, align_corners: bool = False) -> tuple[float, float]:
    """Input pixels per output pixel along each axis, as torch counts them."""
    before = call.input_shape[1:]
    if align_corners:
        return tuple((n - 1) / (m - 1) if m > 1 else 0.0 for n, m in zip(before, size))  # type: ignore[return-value]
    scales = call["scale_factors"] or (None, None)
    return tuple(1 / s if s else n / m for n, m, s in zip(before, size, scales))  # type: ignore[return-value]


@_converts("upsample_nearest2d")
def _upsample_nearest2d(call: Call) -> str:
    call.require_image()
    size = (call.shape[1], call.shape[2])
    return call.emit(UpsampleNearest2d(size, _resizing(call, size)))


@_converts("upsample_bilinear2d")
def _upsample_bilinear2d(call: Call) -> str:
    call.require_image()
    size, corners = (call.shape[1], call.shape[2]), bool(call["align_corners"])
    return call.emit(UpsampleBilinear2d(size, _resizing(call, size, corners), corners))


@_converts("embedding")
def _embedding(call: Call) -> str:
    return call.emit(Embedding(call.parameter("weight", axes=2)), call.data("indices"))


@_converts("linear")
def _linear(call: Call) -> str:
    weight = call.parameter("weight", axes=2)
    return call.emit(Dense(weight, call.optional_parameter("bias")))


@_converts("mm", "matmul", "bmm")
def _matmul(call: Call) -> str:
    operands = [call[name] for name in list(call.arguments)[:2]]
    ranks = [len(call.graph[o].shape) + 1 if is_data(o) else o.ndim for o in operands]
    return _linear_map(call, einsum.matmul_equation(*ranks), operands)


@_converts("einsum")
def _einsum(call: Call) -> str:
    return _linear_map(call, call["equation"], call["tensors"])


def _linear_map(call: Call, equation: str, operands: Sequence[Any]) -> str:
    """What an einsum of one node and of constants is."""
    nodes = [operand for operand in operands if is_data(operand)]
    call.require(len(nodes) == 1, "several of its operands are computed from the input")
    parts = [
        call.graph[operand].shape if is_data(operand) else to_array("an operand", operand)
        for operand in operands
    ]
    name = cast(str, nodes[0])
    for operator in einsum.lower(equation, parts):
        name = call.emit(operator, name)
    return name


@_converts("addmm")
def _addmm(call: Call) -> str:
    weight = np.ascontiguousarray(call.parameter("mat2", axes=2).T) * np.float32(call["alpha"])
    bias = call.parameter("self", axes=1) * np.float32(call["beta"])
    bias = np.broadcast_to(bias, (len(weight),)).copy()
    return call.emit(Dense(weight, bias), call.data("mat1"))


@_converts(*(f"max_pool{axes}d{rest}" for axes in (1, 2, 3) for rest in ("", "_with_indices")))
def _max_pool(call: Call) -> Any:
    axes = _spatial_axes(call)
    kernel = _sizes(call["kernel_size"], axes)
    stride = _sizes(call["stride"], axes) if call["stride"] else kernel
    padding, dilation = _padding(call["padding"], axes), _sizes(call["dilation"], axes)
    return call.first(call.emit(MaxPool(kernel, stride, padding, dilation, call["ceil_mode"])))


@_converts("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def _adaptive_max_pool(call: Call) -> Any:
    sizes, output = call.input_shape[1:], _sizes(call["output_size"], _spatial_axes(call))
    call.require(
        all(n % m == 0 for n, m in zip(sizes, output)),
        f"its output {output} does not divide the input {sizes} into equal windows",
    )
    window = tuple(n // m for n, m in zip(sizes, output))
    return call.first(call.emit(MaxPool(window, window)))


@_converts("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _avg_pool(call: Call) -> str:
    axes = _spatial_axes(call)
    kernel = _sizes(call["kernel_size"], axes)
    return call.emit(
        AvgPool(
            kernel,
            _sizes(call["stride"], axes) if call["stride"] else kernel,
            _padding(call["padding"], axes),
            call["ceil_mode"],
            call["count_include_pad"],
            call["divisor_override"],
        )
    )


@_converts(
    "adaptive_avg_pool1d",
    *(f"{private}adaptive_avg_pool{axes}d" for axes in (2, 3) for private in ("", "_")),
)
def _adaptive_avg_pool(call: Call) -> str:
    return call.emit(AdaptiveAvgPool(call.shape[-_spatial_axes(call) :]))


@_converts("mean")
def _mean(call: Call) -> str:
    axes = [call.axis(dim) for dim in call["dim"] or ()]
    call.require(bool(axes), BATCH_AXIS)
    return call.emit(Mean(tuple(sorted(axes)), call["keepdim"]))


@_converts(
    "batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "cudnn_batch_norm"
)
def _batch_norm(call: Call) -> Any:
    call.require(not call["training"], "it is in train mode")
    call.require(call["running_mean"] is not None, "it keeps no running statistics")
    mean, variance = call.parameter("running_mean", axes=1), call.parameter("running_var", axes=1)
    scale, shift = call.optional_parameter("weight"), call.optional_parameter("bias")
    factor = 1.0 / np.sqrt(variance.astype(np.float64) + call["eps"])
    if scale is not None:
        factor *= scale
    offset = -mean * factor
    if shift is not None:
        offset += shift
    return call.first(call.emit(BatchNorm(factor.astype(np.float32), offset.astype(np.float32))))


@_converts("_native_batch_norm_legit", "_native_batch_norm_legit_functional")
def _batch_statistics(call: Call) -> str:
    raise Unsupported("it uses the statistics of the batch; samples must be independent")


@_converts("local_response_norm")
def _local_response_norm(call: Call) -> str:
    return call.emit(LocalResponseNorm(call["size"], call["alpha"], call["beta"], call["k"]))


@_converts("relu", "relu6", "silu", "sigmoid", "tanh")
def _activation(call: Call) -> str:
    return call.emit(Activation(cast(Function, operator_name(call.node.target))))


_HARD: dict[str, Function] = {"hardsigmoid": "hard_sigmoid", "hardswish": "hard_swish"}


@_converts(*_HARD)
def _hard(call: Call) -> str:
    return call.emit(Activation(_HARD[operator_name(call.node.target)]))


@_converts("softplus")
def _softplus(call: Call) -> str:
    # Above the threshold torch returns x itself, which differs by less than a float32 can hold.
    call.require(call["beta"] == 1 and call["threshold"] >= 17, "only beta 1 is supported")
    return call.emit(Activation("softplus"))


@_converts("leaky_relu")
def _leaky_relu(call: Call) -> str:
    return call.emit(Activation("leaky_relu", float(call["negative_slope"])))


@_converts("elu")
def _elu(call: Call) -> str:
    call.require(call["scale"] == 1 and call["input_scale"] == 1, "only a scale of 1 is supported")
    return call.emit(Activation("elu", float(call["alpha"])))


@_converts("gelu")
def _gelu(call: Call) -> str:
    return call.emit(Activation("gelu_tanh" if call["approximate"] == "tanh" else "gelu"))


@_converts("prelu")
def _prelu(call: Call) -> str:
    slope = call.optional_parameter("weight")
    assert slope is not None
    return call.emit(PReLU(slope.reshape(-1)))


def _bound(call: Call, name: str, default: float) -> float:
    """One number that an argument is, if it is there."""
    value = call[name]
    if value is None:
        return default
    call.require(not is_data(value), f"{name} is computed from the input")
    one = not isinstance(value, torch.Tensor) or value.numel() == 1
    call.require(one, f"{name} has bounds of their own for different elements")
    return float(value)


@_converts("hardtanh", "clamp", "clamp_min", "clamp_max", "clip")
def _clamp(call: Call) -> str:
    low, high = ("min_val", "max_val") if "min_val" in call.arguments else ("min", "max")
    return call.emit(clipping(_bound(call, low, -math.inf), _bound(call, high, math.inf)))


@_converts("amax")
def _maximum_over(call: Call) -> Any:
    dims = call["dim"]
    axes = [call.axis(dim) for dim in ([dims] if isinstance(dims, int) else dims or ())]
    call.require(bool(axes), BATCH_AXIS)
    name = call.input
    for operator in maximum_over(call.input_shape, axes, call["keepdim"]):
        name = call.emit(operator, name)
    return call.first(name)


@_converts("maximum", "minimum", "max", "min")
def _maximum(call: Call) -> Any:
    if "other" not in call.arguments:
        call.require(operator_name(call.node.target) == "max", "it takes a minimum over axes")
        return _maximum_over(call)
    name, other = ("self", "other") if is_data(call["self"]) else ("other", "self")
    least = operator_name(call.node.target).startswith("min")
    if not is_data(call[other]):
        bound = _bound(call, other, 0.0)
        bounds = (-math.inf, bound) if least else (bound, math.inf)
        return call.emit(clipping(*bounds), call.data(name))
    if not least:
        return call.emit(Maximum(), call.data("self"), call.data("other"))
    negated = (call.operand("self", -1.0), call.operand("other", -1.0))
    return call.scaled(call.emit(Maximum(), *negated), "result", -1.0)


@_converts("softmax", "_softmax", "log_softmax", "_log_softmax")
def _softmax(call: Call) -> str:
    last = all(reader.op == "output" for reader in call.node.users)
    call.require(last, "softmax is supported only as the last operator")
    return call.emit(Softmax(call.axis(call["dim"])))


@_converts("add", "sub", "subtract")
def _add(call: Call) -> str:
    sign = 1.0 if operator_name(call.node.target) == "add" else -1.0
    first = call.operand("self")
    return call.emit(Add(), first, call.operand("other", sign * float(call["alpha"])))


@_converts("rsub")
def _rsub(call: Call) -> str:
    return call.emit(Add(), call.operand("other"), call.operand("self", -float(call["alpha"])))


@_converts("mul", "multiply")
def _mul(call: Call) -> str:
    return call.emit(Mul(), call.operand("self"), call.operand("other"))


@_converts("neg", "negative")
def _neg(call: Call) -> str:
    return call.operand("self", -1.0)


@_converts("div", "divide", "true_divide")
def _div(call: Call) -> str:
    call.require(not is_data(call["other"]), "division by a value that depends on the input")
    call.require(call["rounding_mode"] is None, "division with rounding")
    call.arguments["other"] = 1.0 / torch.as_tensor(call["other"], dtype=torch.float64)
    return call.emit(Mul(), call.data("self"), call.operand("other"))


def _joined(call: Call, axis: int, expand: bool) -> str:
    """Concatenate a list of tensors, each given an axis of 1 first where ``expand``."""
    names = []
    rank = len(call.shape) + (0 if expand else 1)
    for position, value in enumerate(call["tensors"]):
        if not is_data(value):
            call.require(
                value.ndim == rank and value.shape[0] == 1, "a constant part has no batch axis"
            )
            name = f"tensors[{position}]"
            value = call.constant(name, to_array(name, value[0]))
        if expand:
            shape = call.graph[value].shape
            value = call.emit(Reshape((*shape[:axis], 1, *shape[axis:])), value)
        names.append(value)
    return call.emit(Concat(axis), *names)


@_converts("cat", "concat", "concatenate")
def _cat(call: Call) -> str:
    return _joined(call, call.axis(call["dim"], len(call.shape) + 1), expand=False)


@_converts("stack")
def _stack(call: Call) -> str:
    return _joined(call, call.axis(call["dim"], len(call.shape) + 1), expand=True)


@_converts("slice", "narrow")
def _slice(call: Call) -> str:
    dim = call["dim"] % (len(call.input_shape) + 1)
    if "length" in call.arguments:
        call.arguments["end"] = call["start"] + call["length"]
    if dim == 0:
        whole = (
            call["start"] in (None, 0)
            and call["end"] in (None, 2**63 - 1)
            and call["step"] in (None, 1)
        )
        call.require(whole, BATCH_AXIS)
        return call.input
    start, stop, _ = slice(call["start"], call["end"]).indices(call.input_shape[dim - 1])
    return call.emit(Slice(dim - 1, start, stop, call["step"] or 1))


@_converts("select")
def _select(call: Call) -> str:
    axis = call.axis(call["dim"])
    index = call["index"] % call.input_shape[axis]
    return call.emit(Reshape(call.shape), call.emit(Slice(axis, index, index + 1)))


def _pieces(call: Call, axis: int, sizes: Sequence[int]) -> list[str | None]:
    """Slices of the given sizes one after the other, those that are read."""
    read = {reader.args[1] for reader in call.node.users}
    stops = np.cumsum(sizes).tolist()
    return [
        call.emit(Slice(axis, stop - size, stop)) if position in read else None
        for position, (size, stop) in enumerate(zip(sizes, stops))
    ]


@_converts("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_split_with_sizes")
def _split(call: Call) -> list[str | None]:
    axis = call.axis(call["dim"])
    sizes = [part.shape[axis + 1] for part in call.node.meta["val"]]
    return _pieces(call, axis, sizes)


@_converts("unbind")
def _unbind(call: Call) -> list[str | None]:
    axis = call.axis(call["dim"])
    shape = call.input_shape
    parts = _pieces(call, axis, [1] * shape[axis])
    rest = (*shape[:axis], *shape[axis + 1 :])
    return [part and call.emit(Reshape(rest), part) for part in parts]


@_converts("pad", "constant_pad_nd")
def _pad(call: Call) -> str:
    call.require(call["mode"] in (None, "constant"), f"padding mode {call['mode']!r}")
    shape, flat = call.input_shape, list(call["pad"])
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)][::-1]
    pairs = [(0, 0)] * (len(shape) + 1 - len(pairs)) + pairs
    call.require(pairs.pop(0) == (0, 0), BATCH_AXIS)
    name = call.input
    for axis, (before, after) in enumerate(pairs):
        if before < 0 or after < 0:  # a negative pad cuts
            stop = shape[axis] + min(after, 0)
            name = call.emit(Slice(axis, max(-before, 0), stop), name)
    pads = tuple((max(before, 0), max(after, 0)) for before, after in pairs)
    return call.emit(Pad(pads, float(call["value"] or 0.0)), name)


@_converts("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")
def _reshape(call: Call) -> str:
    return call.emit(Reshape(call.shape))


def _permuted(call: Call, dims: Sequence[int]) -> str:
    rank = len(call.input_shape) + 1
    call.require(dims[0] % rank == 0, BATCH_AXIS)
    return call.emit(Permute(tuple(call.axis(dim) for dim in dims[1:])))


@_converts("permute")
def _permute(call: Call) -> str:
    return _permuted(call, call["dims"])


@_converts("transpose", "swapaxes")
def _transpose(call: Call) -> str:
    dims = list(range(len(call.input_shape) + 1))
    first, second = (
        (call["axis0"], call["axis1"])
        if "axis0" in call.arguments
        else (call["dim0"], call["dim1"])
    )
    dims[first], dims[second] = dims[second], dims[first]
    return _permuted(call, dims)


@_converts("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout")
def _dropout(call: Call) -> Any:
    call.require(not call["train"], "it is in train mode")
    return call.first(call.input)


@_converts("clone", "contiguous", "alias", "detach", "lift_fresh_copy", "expand", "expand_as")
def _nothing(call: Call) -> str:
    call.require(call.shape == call.input_shape, "it repeats values")
    return call.input


@_converts("_to_copy", "to", "type_as")
def _to_copy(call: Call) -> str:
    # The core computes in float32, so a cast that keeps or widens the type changes nothing.
    before, after = call.raw["self"].meta["val"].dtype, call.node.meta["val"].dtype
    if call.graph[call.input].ids:
        same = after in (torch.int32, torch.int64)
    else:
        same = after in (before, torch.float32, torch.float64)
    call.require(same, f"a cast from {before} to {after}")
    return call.input


@_converts("zeros_like", "new_zeros", "ones_like", "new_ones", "full_like", "new_full")
def _filled(call: Call) -> torch.Tensor:
    name = operator_name(call.node.target)
    value = call["fill_value"] if "full" in name else float("ones" in name)
    return torch.full((1, *call.shape), float(value))
