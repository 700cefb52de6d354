"""torch modules to Graph, through ``torch.export``.

The module is traced once with a batch of symbolic size and never changed. Each aten operator of
the trace has one small function in the table below; what no function covers is collected and
raised in one error. An operator whose inputs are all parameters (weight normalisation, say) is
evaluated here and becomes a parameter of the Graph.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from relprop.errors import UnsupportedOperatorError
from relprop.graph import (
    Activation,
    AdaptiveAvgPool2d,
    Add,
    Array,
    AvgPool2d,
    BatchNorm,
    Concat,
    Constant,
    Conv2d,
    Dense,
    Function,
    Graph,
    Identity,
    Input,
    LocalResponseNorm,
    MaxPool2d,
    Mean,
    Mul,
    Operator,
    Pad,
    Pair,
    Permute,
    Reshape,
    Shape,
    Slice,
    Softmax,
)

_MODE_DEPENDENT = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.modules.dropout._DropoutNd,
    nn.RReLU,
)
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)

# torch.export patches torch itself while it traces.
_TRACING = threading.Lock()


def convert(module: nn.Module, example: torch.Tensor) -> Graph:
    """Turn a torch module in eval mode into a Graph; the module is left as it is.

    Parameters
    ----------
    module
        Takes one tensor whose first axis is the batch and returns one.
    example
        An input with its batch axis; only its shape matters.

    Raises
    ------
    UnsupportedOperatorError
        If the Graph cannot represent some operators; the message lists all of them.
    ValueError
        If the module is in train mode, has several inputs or outputs, or cannot be traced.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, not {type(module).__name__}.")
    while isinstance(module, _WRAPPERS):
        module = module.module
    _refuse_train_mode(module)
    program = _trace(module, _example_like(module, example))
    return _Conversion(program).run()


def _refuse_train_mode(module: nn.Module) -> None:
    training = [
        f"{name or 'the module itself'} ({type(part).__name__})"
        for name, part in module.named_modules()
        if part.training and (part is module or isinstance(part, _MODE_DEPENDENT))
    ]
    if training:
        raise ValueError(
            "module must be in eval mode, where dropout is off and batch norm uses its stored "
            f"statistics; call module.eval() first. In train mode: {', '.join(training)}."
        )


def _example_like(module: nn.Module, example: torch.Tensor) -> torch.Tensor:
    """One sample of the example on the module's device and in its precision, twice."""
    if not isinstance(example, torch.Tensor):
        raise TypeError(
            f"example must be one tensor, not {type(example).__name__}; "
            "modules with several inputs are not supported."
        )
    if example.ndim < 2 or 0 in example.shape:
        raise ValueError(
            f"example must have shape (batch, ...) without an empty axis, not {tuple(example.shape)}."
        )
    if example.is_complex() or example.is_quantized:
        raise ValueError(f"example must be of a real floating type, not {example.dtype}.")
    parameter = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    sample = example[:1].detach().to(device=parameter.device, dtype=parameter.dtype)
    return torch.cat([sample, sample])


def _trace(module: nn.Module, example: torch.Tensor) -> ExportedProgram:
    # A batch of 1 would be taken for a constant; a batch of 2 can be marked dynamic.
    with _TRACING, torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = example.clone()  # made outside inference mode, where tracing needs it
        try:
            program = torch.export.export(
                module, (example,), dynamic_shapes=({0: Dim.DYNAMIC},), strict=False
            ).run_decompositions({})
        except Exception as error:
            if "specialized" in str(error) or "Constraints violated" in str(error):
                raise UnsupportedOperatorError(
                    "the module fixes or mixes the batch axis, samples must be independent; "
                    f"torch.export says: {error}"
                ) from error
            raise ValueError(f"torch.export cannot trace the module: {error}") from error
    structure = program.call_spec.out_spec
    if structure is None or structure.num_nodes != 1 or structure.num_leaves != 1:
        raise ValueError(
            f"the module must return one tensor, not {structure}; wrap it in a module that picks one."
        )
    changed = [s.target for s in program.graph_signature.output_specs if s.kind != OutputKind.USER_OUTPUT]
    if changed:
        raise ValueError(f"the module changes its buffers when it runs: {', '.join(map(str, changed))}.")
    return program


# --------------------------------------------------------------------------- the conversion


class _Unsupported(Exception):
    """Why one traced operator cannot be represented."""


class _Unknown:
    """Stands for a value that an unsupported operator would have made."""


def _is_data(value: Any) -> bool:
    """Whether a value comes from the input: a node's name, or a list of such."""
    if isinstance(value, (list, tuple)):
        return any(_is_data(v) for v in value)
    return isinstance(value, str)


def _operator_name(target: Any) -> str:
    """The operator's key in the table; its overloads share it."""
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.removeprefix("aten::")
    return getattr(target, "__name__", str(target))


def _module_of(node: fx.Node) -> tuple[str, str]:
    """Path and class of the module that called the operator, where torch recorded them."""
    for path, kind in reversed(list(node.meta.get("nn_module_stack", {}).values())):
        if path != "_empty_nn_module_stack_from_metadata_hook":
            kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
            return path.split("@")[0], kind  # "relu@1" is the second call of "relu"
    return "", ""


def _to_array(name: str, tensor: torch.Tensor) -> Array:
    if tensor.is_complex() or tensor.is_quantized:
        raise _Unsupported(f"{name} is of type {tensor.dtype}")
    array = tensor.detach().to(device="cpu", dtype=torch.float32).numpy().copy()
    if not np.isfinite(array).all():
        raise _Unsupported(f"{name} holds NaN or infinite values")
    return cast(Array, array)


class _Conversion:
    """Walks a traced program and fills a Graph.

    ``values`` holds for each traced node a Graph node's name where it depends on the input,
    otherwise a tensor or number; several results are a list.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.graph = Graph()
        self.values: dict[fx.Node, Any] = {}
        self.labels: dict[fx.Node, str] = {}
        self.problems: list[str] = []

    def run(self) -> Graph:
        traced = self.program.graph_module.graph
        _restore_local_response_norm(traced)
        traced.eliminate_dead_code()
        self._read_placeholders(traced)
        for node in traced.nodes:
            if node.op == "call_function":
                self.values[node] = self._evaluate(node)
        if self.problems:
            raise UnsupportedOperatorError(
                "the model holds operators that relprop cannot represent:\n  "
                + "\n  ".join(self.problems)
            )
        output = self.values[next(n for n in traced.nodes if n.op == "output").args[0][0]]
        if not _is_data(output):
            raise ValueError("the module's output does not depend on its input.")
        self.graph.output = output
        return self.graph

    def _read_placeholders(self, traced: fx.Graph) -> None:
        specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        tensors = {**self.program.state_dict, **self.program.constants}
        for node in traced.nodes:
            if node.op == "get_attr":
                self.values[node] = getattr(self.program.graph_module, node.target)
            if node.op != "placeholder":
                continue
            spec = specs[node.name]
            if spec.kind == InputKind.USER_INPUT:
                self.batch = node.meta["val"].shape[0]
                self.values[node] = self.graph.add("input", Input(tuple(node.meta["val"].shape[1:])))
            else:
                self.values[node] = tensors.get(spec.target)
                self.labels[node] = str(spec.target)

    def _evaluate(self, node: fx.Node) -> Any:
        result = node.meta.get("val")
        if result is None or isinstance(result, (int, float, torch.SymInt, torch.SymFloat, torch.SymBool)):
            return result  # sizes, and torch's own assertions
        name = _operator_name(node.target)
        sources = [self.values[source] for source in node.all_input_nodes]
        try:
            depends = any(value is _Unknown or _is_data(value) for value in sources)
            if depends and name != "getitem" and name not in _TABLE:
                raise _Unsupported("")
            if any(value is _Unknown for value in sources):
                return _Unknown
            if not depends:
                return self._evaluate_constant(node)
            if isinstance(result, torch.Tensor) and not self._is_batch(result.shape[:1]):
                raise _Unsupported(
                    f"it touches the batch axis (result of shape {tuple(result.shape)}, "
                    f"batch {self.batch}); samples must be independent"
                )
            call = _Call(self, node)
            if name == "getitem":
                value = call.arguments["input"][call.arguments["index"]]
                if value is None:
                    raise _Unsupported("only its first result is available")
            else:
                value = _TABLE[name](call)
            if isinstance(value, str) and self.graph[value].shape != call.shape:
                raise _Unsupported(f"shape {self.graph[value].shape} came out instead of {call.shape}")
            return value
        except (_Unsupported, ValueError) as error:
            path, kind = _module_of(node)
            where = f" (module {path!r}, {kind.rpartition('.')[2]})" if path else ""
            reason = f": {error}" if str(error) else ""
            self.problems.append(f"{node.target} at node {self._free_name(node)!r}{where}{reason}")
            return _Unknown

    def _evaluate_constant(self, node: fx.Node) -> Any:
        """An operator on parameters alone, for a batch of one where the batch size enters."""
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise _Unsupported("it draws random numbers")

        def value_of(argument: Any) -> Any:
            value = self.values[argument] if isinstance(argument, fx.Node) else argument
            if isinstance(value, torch.SymInt):
                if not self._is_batch((value,)):
                    raise _Unsupported(f"its size {value} depends on the batch axis")
                return 1
            return value

        args, kwargs = fx.node.map_aggregate((node.args, node.kwargs), value_of)
        with torch.inference_mode(False), torch.no_grad():
            return cast(Callable[..., Any], node.target)(*args, **kwargs)

    def _is_batch(self, leading: Sequence[Any]) -> bool:
        return (
            len(leading) == 1
            and isinstance(leading[0], torch.SymInt)
            and leading[0].node.expr == self.batch.node.expr
        )

    def _free_name(self, node: fx.Node) -> str:
        """The module's path for its own operator, "path.operator" for a functional call."""
        path, kind = _module_of(node)
        own = kind.startswith("torch.nn.modules.") or any(
            self.labels.get(source, "").rpartition(".")[0] == path for source in node.all_input_nodes
        )
        operator = _operator_name(node.target)
        return self.unique(path if path and own else f"{path}.{operator}".lstrip("."))

    def unique(self, name: str) -> str:
        """The name itself, or with "#2", "#3" and so on where it is taken."""
        count, free = 1, name
        while free in self.graph.nodes:
            count += 1
            free = f"{name}#{count}"
        return free


class _Call:
    """One traced operator: its arguments with defaults filled in, and the Graph to add to."""

    def __init__(self, conversion: _Conversion, node: fx.Node) -> None:
        self.conversion = conversion
        self.graph = conversion.graph
        self.node = node
        self.raw = _bind(node)
        self.arguments = {
            name: fx.node.map_arg(value, lambda source: conversion.values[source])
            for name, value in self.raw.items()
        }
        result = node.meta["val"]
        self.shape: Shape = tuple(result.shape[1:]) if isinstance(result, torch.Tensor) else ()

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    @property
    def input(self) -> str:
        """The Graph node that is the first argument."""
        return self.data(next(iter(self.arguments)))

    @property
    def input_shape(self) -> Shape:
        return self.graph[self.input].shape

    def data(self, name: str) -> str:
        """The Graph node that an argument is."""
        if not _is_data(self[name]):
            raise _Unsupported(f"{name} does not depend on the input")
        return cast(str, self[name])

    def parameter(self, name: str) -> Array | None:
        """An argument that must not depend on the input, as an array."""
        value = self[name]
        if value is None:
            return None
        if _is_data(value):
            raise _Unsupported(f"{name} is computed from the input")
        return _to_array(name, value)

    def operand(self, name: str, scale: float = 1.0) -> str:
        """An argument as a node: what it is already, or a new Constant, times ``scale``."""
        value = self[name]
        if _is_data(value):
            if scale == 1.0:
                return cast(str, value)
            return self.emit(Mul(), cast(str, value), self.constant(f"{name}.scale", np.float32(scale)))
        tensor = torch.as_tensor(value)
        if tensor.ndim == len(self.shape) + 1:
            if tensor.shape[0] != 1:
                raise _Unsupported(f"{name} has a value of its own for each sample")
            tensor = tensor[0]
        source = self.raw[name]
        label = self.conversion.labels.get(source, "") if isinstance(source, fx.Node) else ""
        return self.constant(label or name, _to_array(name, tensor) * np.float32(scale))

    def constant(self, name: str, value: Any) -> str:
        path, _ = _module_of(self.node)
        name = name if name in self.conversion.labels.values() else f"{path}.{name}".lstrip(".")
        return self.graph.add(self.conversion.unique(name), Constant(np.asarray(value, np.float32)))

    def axis(self, dim: int, rank: int | None = None) -> int:
        """A torch axis without the batch, for a tensor of ``rank`` axes with it."""
        rank = len(self.input_shape) + 1 if rank is None else rank
        if dim % rank == 0:
            raise _Unsupported("it touches the batch axis; samples must be independent")
        return dim % rank - 1

    def require(self, condition: bool, reason: str) -> None:
        if not condition:
            raise _Unsupported(reason)

    def require_image(self) -> None:
        self.require(
            len(self.input_shape) == 3, f"its input must be (batch, channels, height, width), not a batch of {self.input_shape}"
        )

    def emit(self, operator: Operator, *inputs: str) -> str:
        """Add a node that reads ``inputs``, by default this call's input."""
        name = self.conversion._free_name(self.node)
        return self.graph.add(name, operator, inputs or (self.input,))


def _bind(node: fx.Node) -> dict[str, Any]:
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


def _restore_local_response_norm(traced: fx.Graph) -> None:
    """Put F.local_response_norm back together: tracing splits it into elementary operators."""
    for node in list(traced.nodes):
        settings = _match_local_response_norm(node)
        if settings is not None:
            with traced.inserting_before(node):
                whole = traced.call_function(F.local_response_norm, (), settings)
            whole.meta = dict(node.meta)
            node.replace_all_uses_with(whole)


def _match_local_response_norm(node: fx.Node) -> dict[str, Any] | None:
    """Settings of ``x / (k + alpha * mean of squares over channels) ** beta``, if it is one."""

    def undo(node: Any, name: str) -> tuple[Any, ...]:
        if not isinstance(node, fx.Node) or _operator_name(node.target) != name:
            raise LookupError
        return tuple(_bind(node).values())

    try:
        signal, denominator = undo(node, "div")[:2]
        scaled_sum, beta = undo(denominator, "pow")[:2]
        scaled, k = undo(scaled_sum, "add")[:2]
        pooled, alpha = undo(scaled, "mul")[:2]
        pooled = undo(undo(pooled, "view")[0], "squeeze")[0]
        padded, kernel, stride, padding = undo(pooled, "avg_pool3d")[:4]
        viewed, pads, *rest = undo(padded, "pad")
        squared = undo(undo(viewed, "view")[0], "mul")[:2]
    except LookupError:
        return None
    size = kernel[0]
    fits = (
        squared == (signal, signal)
        and list(kernel) == [size, 1, 1]
        and list(stride) == [1, 1, 1]
        and not any(padding)
        and list(pads) == [0, 0, 0, 0, size // 2, (size - 1) // 2]
    )
    return {"input": signal, "size": size, "alpha": alpha, "beta": beta, "k": k} if fits else None


# --------------------------------------------------------------------------- the operator table

_Converter = Callable[[_Call], Any]
_TABLE: dict[str, _Converter] = {}


def _converts(*names: str) -> Callable[[_Converter], _Converter]:
    def register(function: _Converter) -> _Converter:
        _TABLE.update(dict.fromkeys(names, function))
        return function

    return register


def _pair(values: Any) -> Pair:
    values = [values] if isinstance(values, int) else list(values)
    return (int(values[0]), int(values[-1]))


def _padding(values: Any) -> tuple[int, int, int, int]:
    height, width = _pair(values)
    return (height, height, width, width)


@_converts("conv2d", "convolution")
def _conv2d(call: _Call) -> str:
    weight = call.parameter("weight")
    assert weight is not None
    call.require(weight.ndim == 4 and not call["transposed"], "only 2d convolutions are supported")
    call.require_image()
    dilation = _pair(call["dilation"])
    if call["padding"] == "valid":
        padding = (0, 0, 0, 0)
    elif call["padding"] == "same":
        height, width = (d * (k - 1) for d, k in zip(dilation, weight.shape[2:]))
        padding = (height // 2, height - height // 2, width // 2, width - width // 2)
    else:
        padding = _padding(call["padding"])
    stride = _pair(call["stride"])
    return call.emit(Conv2d(weight, call.parameter("bias"), stride, padding, dilation, call["groups"]))


@_converts("linear")
def _linear(call: _Call) -> str:
    weight = call.parameter("weight")
    assert weight is not None
    call.require(weight.ndim == 2, f"weight must have 2 axes, not {weight.ndim}")
    return call.emit(Dense(weight, call.parameter("bias")))


@_converts("mm", "matmul")
def _matmul(call: _Call) -> str:
    name = "mat2" if "mat2" in call.arguments else "other"
    weight = call.parameter(name)
    assert weight is not None
    call.require(weight.ndim == 2, f"{name} must have 2 axes, not {weight.ndim}")
    return call.emit(Dense(np.ascontiguousarray(weight.T)))


@_converts("addmm")
def _addmm(call: _Call) -> str:
    weight, bias = call.parameter("mat2"), call.parameter("self")
    assert weight is not None and bias is not None
    weight = np.ascontiguousarray(weight.T) * np.float32(call["alpha"])
    bias = np.broadcast_to(bias * np.float32(call["beta"]), (1, len(weight)))[0].copy()
    return call.emit(Dense(weight, bias), call.data("mat1"))


@_converts("max_pool2d", "max_pool2d_with_indices")
def _max_pool2d(call: _Call) -> Any:
    call.require_image()
    kernel = _pair(call["kernel_size"])
    stride = _pair(call["stride"]) if call["stride"] else kernel
    name = call.emit(
        MaxPool2d(
            kernel, stride, _padding(call["padding"]), _pair(call["dilation"]), call["ceil_mode"]
        )
    )
    return name if call.shape else [name, None]


@_converts("adaptive_max_pool2d")
def _adaptive_max_pool2d(call: _Call) -> Any:
    call.require_image()
    (_, *sizes), output = call.input_shape, _pair(call["output_size"])
    call.require(
        all(n % m == 0 for n, m in zip(sizes, output)),
        f"its output {output} does not divide the image {tuple(sizes)} into equal windows",
    )
    window = (sizes[0] // output[0], sizes[1] // output[1])
    return [call.emit(MaxPool2d(window, window)), None]


@_converts("avg_pool2d")
def _avg_pool2d(call: _Call) -> str:
    call.require_image()
    kernel = _pair(call["kernel_size"])
    return call.emit(
        AvgPool2d(
            kernel,
            _pair(call["stride"]) if call["stride"] else kernel,
            _padding(call["padding"]),
            call["ceil_mode"],
            call["count_include_pad"],
            call["divisor_override"],
        )
    )


@_converts("adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def _adaptive_avg_pool2d(call: _Call) -> str:
    call.require_image()
    return call.emit(AdaptiveAvgPool2d((call.shape[1], call.shape[2])))


@_converts("mean")
def _mean(call: _Call) -> str:
    axes = [call.axis(dim) for dim in call["dim"] or ()]
    call.require(bool(axes), "it touches the batch axis; samples must be independent")
    return call.emit(Mean(tuple(sorted(axes)), call["keepdim"]))


@_converts("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "cudnn_batch_norm")
def _batch_norm(call: _Call) -> Any:
    call.require(not call["training"], "it is in train mode")
    mean, variance = call.parameter("running_mean"), call.parameter("running_var")
    call.require(mean is not None and variance is not None, "it keeps no running statistics")
    scale, shift = call.parameter("weight"), call.parameter("bias")
    assert mean is not None and variance is not None
    factor = 1.0 / np.sqrt(variance.astype(np.float64) + call["eps"])
    if scale is not None:
        factor *= scale
    offset = -mean * factor
    if shift is not None:
        offset += shift
    name = call.emit(BatchNorm(factor.astype(np.float32), offset.astype(np.float32)))
    return name if call.shape else [name, None, None]


@_converts("_native_batch_norm_legit", "_native_batch_norm_legit_functional")
def _batch_statistics(call: _Call) -> str:
    raise _Unsupported("it uses the statistics of the batch; samples must be independent")


@_converts("local_response_norm")
def _local_response_norm(call: _Call) -> str:
    call.require_image()
    return call.emit(LocalResponseNorm(call["size"], call["alpha"], call["beta"], call["k"]))


@_converts("relu", "relu6", "silu", "sigmoid", "tanh")
def _activation(call: _Call) -> str:
    return call.emit(Activation(cast(Function, _operator_name(call.node.target))))


@_converts("leaky_relu")
def _leaky_relu(call: _Call) -> str:
    return call.emit(Activation("leaky_relu", float(call["negative_slope"])))


@_converts("elu")
def _elu(call: _Call) -> str:
    call.require(call["scale"] == 1 and call["input_scale"] == 1, "only a scale of 1 is supported")
    return call.emit(Activation("elu", float(call["alpha"])))


@_converts("gelu")
def _gelu(call: _Call) -> str:
    return call.emit(Activation("gelu_tanh" if call["approximate"] == "tanh" else "gelu"))


@_converts("hardtanh", "clamp", "clamp_min")
def _clamp(call: _Call) -> str:
    low = call["min_val"] if "min_val" in call.arguments else call["min"]
    high = call["max_val"] if "max_val" in call.arguments else call["max"]
    call.require(
        low == 0 and high in (None, 6), f"only bounds (0, 6) and (0, None) are supported, not ({low}, {high})"
    )
    return call.emit(Activation("relu" if high is None else "relu6"))


@_converts("softmax", "_softmax", "log_softmax", "_log_softmax")
def _softmax(call: _Call) -> str:
    last = all(reader.op == "output" for reader in call.node.users)
    call.require(last, "softmax is supported only as the last operator")
    return call.emit(Softmax(call.axis(call["dim"])))


@_converts("add", "sub")
def _add(call: _Call) -> str:
    sign = 1.0 if _operator_name(call.node.target) == "add" else -1.0
    first = call.operand("self")
    return call.emit(Add(), first, call.operand("other", sign * float(call["alpha"])))


@_converts("rsub")
def _rsub(call: _Call) -> str:
    return call.emit(Add(), call.operand("other"), call.operand("self", -float(call["alpha"])))


@_converts("mul")
def _mul(call: _Call) -> str:
    return call.emit(Mul(), call.operand("self"), call.operand("other"))


@_converts("neg")
def _neg(call: _Call) -> str:
    return call.operand("self", -1.0)


@_converts("div")
def _div(call: _Call) -> str:
    call.require(not _is_data(call["other"]), "division by a value that depends on the input")
    call.require(call["rounding_mode"] is None, "division with rounding")
    call.arguments["other"] = 1.0 / torch.as_tensor(call["other"], dtype=torch.float64)
    return call.emit(Mul(), call.data("self"), call.operand("other"))


def _joined(call: _Call, axis: int, expand: bool) -> str:
    """Concatenate a list of tensors, each given an axis of 1 first where ``expand``."""
    names = []
    rank = len(call.shape) + (0 if expand else 1)
    for position, value in enumerate(call["tensors"]):
        if not _is_data(value):
            call.require(value.ndim == rank and value.shape[0] == 1, "a constant part has no batch axis")
            value = call.constant("constant", _to_array(f"tensors[{position}]", value[0]))
        if expand:
            shape = call.graph[value].shape
            value = call.emit(Reshape((*shape[:axis], 1, *shape[axis:])), value)
        names.append(value)
    return call.emit(Concat(axis), *names)


@_converts("cat", "concat", "concatenate")
def _cat(call: _Call) -> str:
    return _joined(call, call.axis(call["dim"], len(call.shape) + 1), expand=False)


@_converts("stack")
def _stack(call: _Call) -> str:
    return _joined(call, call.axis(call["dim"], len(call.shape) + 1), expand=True)


def _slice_bounds(call: _Call, size: int) -> tuple[int, int]:
    start, stop = call["start"], call["end"]
    start, stop, _ = slice(start, stop).indices(size)
    return start, stop


@_converts("slice", "narrow")
def _slice(call: _Call) -> str:
    dim = call["dim"] % (len(call.input_shape) + 1)
    if "length" in call.arguments:
        call.arguments["end"] = call["start"] + call["length"]
    if dim == 0:
        whole = call["start"] in (None, 0) and call["end"] in (None, 2**63 - 1) and call["step"] in (None, 1)
        call.require(whole, "it touches the batch axis; samples must be independent")
        return call.input
    start, stop = _slice_bounds(call, call.input_shape[dim - 1])
    return call.emit(Slice(dim - 1, start, stop, call["step"] or 1))


@_converts("select")
def _select(call: _Call) -> str:
    axis = call.axis(call["dim"])
    index = call["index"] % call.input_shape[axis]
    return call.emit(Reshape(call.shape), call.emit(Slice(axis, index, index + 1)))


def _pieces(call: _Call, axis: int, sizes: Sequence[int]) -> list[str | None]:
    """Slices of the given sizes one after the other, those that are read."""
    read = {reader.args[1] for reader in call.node.users}
    stops = np.cumsum(sizes).tolist()
    return [
        call.emit(Slice(axis, stop - size, stop)) if position in read else None
        for position, (size, stop) in enumerate(zip(sizes, stops))
    ]


@_converts("split", "split_with_sizes", "chunk")
def _split(call: _Call) -> list[str | None]:
    axis = call.axis(call["dim"])
    sizes = [part.shape[axis + 1] for part in call.node.meta["val"]]
    return _pieces(call, axis, sizes)


@_converts("unbind")
def _unbind(call: _Call) -> list[str | None]:
    axis = call.axis(call["dim"])
    shape = call.input_shape
    parts = _pieces(call, axis, [1] * shape[axis])
    rest = (*shape[:axis], *shape[axis + 1 :])
    return [part and call.emit(Reshape(rest), part) for part in parts]


@_converts("pad", "constant_pad_nd")
def _pad(call: _Call) -> str:
    call.require(call["mode"] in (None, "constant"), f"padding mode {call['mode']!r}")
    shape, flat = call.input_shape, list(call["pad"])
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)][::-1]
    pairs = [(0, 0)] * (len(shape) + 1 - len(pairs)) + pairs
    call.require(pairs.pop(0) == (0, 0), "it touches the batch axis; samples must be independent")
    name = call.input
    for axis, (before, after) in enumerate(pairs):
        if before < 0 or after < 0:  # a negative pad cuts
            stop = shape[axis] + min(after, 0)
            name = call.emit(Slice(axis, max(-before, 0), stop), name)
    pads = tuple((max(before, 0), max(after, 0)) for before, after in pairs)
    return call.emit(Pad(pads, float(call["value"] or 0.0)), name)


@_converts("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")
def _reshape(call: _Call) -> str:
    return call.emit(Reshape(call.shape))


def _permuted(call: _Call, dims: Sequence[int]) -> str:
    rank = len(call.input_shape) + 1
    call.require(dims[0] % rank == 0, "it touches the batch axis; samples must be independent")
    return call.emit(Permute(tuple(call.axis(dim) for dim in dims[1:])))


@_converts("permute")
def _permute(call: _Call) -> str:
    return _permuted(call, call["dims"])


@_converts("transpose", "swapaxes")
def _transpose(call: _Call) -> str:
    dims = list(range(len(call.input_shape) + 1))
    first, second = (
        (call["axis0"], call["axis1"]) if "axis0" in call.arguments else (call["dim0"], call["dim1"])
    )
    dims[first], dims[second] = dims[second], dims[first]
    return _permuted(call, dims)


@_converts("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout")
def _dropout(call: _Call) -> Any:
    call.require(not call["train"], "it is in train mode")
    name = call.emit(Identity())
    return name if call.shape else [name, None]


@_converts("clone", "contiguous", "alias", "detach", "lift_fresh_copy", "expand", "expand_as")
def _nothing(call: _Call) -> str:
    call.require(call.shape == call.input_shape, "it repeats values")
    return call.input


@_converts("_to_copy", "to")
def _to_copy(call: _Call) -> str:
    # The core computes in float32, so a cast that keeps or widens the type changes nothing.
    before, after = call.raw["self"].meta["val"].dtype, call.node.meta["val"].dtype
    call.require(after in (before, torch.float32, torch.float64), f"a cast from {before} to {after}")
    return call.input


@_converts("zeros_like", "new_zeros", "ones_like", "new_ones", "full_like", "new_full")
def _filled(call: _Call) -> torch.Tensor:
    name = _operator_name(call.node.target)
    value = call["fill_value"] if "full" in name else float("ones" in name)
    return torch.full((1, *call.shape), float(value))
