"""torch modules to Graph, through ``torch.export``.

The module is traced once with a batch of symbolic size and never changed. Each aten operator of
the trace has one small function in ``aten.py``; what no function covers is collected and raised
in one error. An operator whose inputs are all parameters (weight normalisation, say) is evaluated
here and becomes a parameter of the Graph.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import io
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from typing import Any, TypeAlias, cast

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from relprop.errors import UnsupportedOperatorError
from relprop.frontends.aten import BESIDE, CHANNELS, TABLE, UNALIGNED
from relprop.frontends.aten_call import Call, is_data, module_of, operator_name
from relprop.frontends.aten_moves import VIEWS
from relprop.frontends.aten_patterns import restore
from relprop.frontends.batch_axis import HOME, Place, common
from relprop.frontends.conversion import BATCH_AXIS, Unsupported, check_outputs, refusal
from relprop.graph import Content, Graph, Input

_MODE_DEPENDENT = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.modules.dropout._DropoutNd,
    nn.RReLU,
)
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)

Example: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...] | Mapping[str, torch.Tensor]
_Arguments: TypeAlias = tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]

_SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)

# What takes shape and type, but no values, from a first tensor that may depend on the input.
_FILLED = {
    *("zeros_like", "new_zeros", "ones_like", "new_ones", "full_like", "new_full"),
    *("fill", "copy"),
}

# One sample and so many must have the same constants. Two would not do: torch.ones(2, 4).triu(-1)
# is full; nor an odd number, for what asks for parity.
_MANY = 8

_FIXED_BATCH = ("specialized it to be a constant", "Constraints violated")
"""What torch.export says of a module that computes with the batch size itself."""

# While torch.export traces, it patches torch itself and the module holds fake parameters.
_TRACING = threading.Lock()


def convert(module: nn.Module, example: Example) -> Graph:
    """Turn a torch module in eval mode into a Graph; the module is left as it is.

    Parameters
    ----------
    module
        Takes tensors whose first axis is the batch, and returns one or several: as a tuple, list,
        dictionary, named tuple or dataclass, one in another as well. Its outputs are named by
        keys and fields, "output_0" and so on by position, a single tensor "output".
    example
        An input with its batch axis; a tuple of them, or a dictionary of keyword arguments,
        whose keys name the inputs. Only their shapes matter, and whether they are of int32 or
        int64: then they hold ids for an embedding.

    Raises
    ------
    UnsupportedOperatorError
        If the Graph cannot represent some operators; the message lists all of them.
    ValueError
        If the module is in train mode or on the meta device, cannot be traced, or returns what
        depends on no input.

    Notes
    -----
    Conversions wait for each other. Another thread must not run the module meanwhile. A module
    that treats a batch of one otherwise (``if len(x) > 1``) is read as for larger batches; any
    other condition on the batch size is refused.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, not {type(module).__name__}.")
    while isinstance(module, _WRAPPERS):
        module = module.module
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError("a scripted module cannot be traced; give the module it was made of.")
    _refuse_train_mode(module)
    with _TRACING:
        _refuse_what_has_no_values(module)
        args, kwargs = _arguments(module, example)
        program = _trace(module, (args, kwargs))
        names = ("input",) if isinstance(example, torch.Tensor) else tuple(kwargs)
        return _Conversion(program, names).run()


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


def _refuse_what_has_no_values(module: nn.Module) -> None:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_meta:
            raise ValueError(
                f"module must have values, but {name} is on the meta device; load its weights "
                "first, as by module.to_empty(device='cpu') and load_state_dict."
            )


def _arguments(module: nn.Module, example: Example) -> _Arguments:
    """Positional and keyword arguments of the module, made of its example."""
    if isinstance(example, Mapping):
        known = inspect.signature(module.forward).parameters
        opened = [p for p in known.values() if p.kind is inspect.Parameter.VAR_KEYWORD]
        unknown = [name for name in example if name not in known]
        if opened and unknown:
            raise ValueError(
                f"example must be of arguments that forward names, not of **{opened[0].name} (as "
                f"{', '.join(map(str, unknown))}), which torch.export cannot trace; wrap it."
            )
        named = {
            name: _example_like(module, one, f"example[{name!r}]") for name, one in example.items()
        }
        return (), named
    if isinstance(example, tuple):
        return tuple(
            _example_like(module, one, f"example[{i}]") for i, one in enumerate(example)
        ), {}
    return (_example_like(module, example, "example"),), {}


def _example_like(module: nn.Module, example: torch.Tensor, name: str) -> torch.Tensor:
    """Two samples of the example's shape, of zeros, on the module's device and in its precision.

    A batch of 1 would be taken for a constant; a batch of 2 can be marked dynamic.
    """
    if not isinstance(example, torch.Tensor):
        raise TypeError(
            f"{name} must be a tensor, not {type(example).__name__}; for several inputs example "
            "is a tuple or a dictionary of tensors."
        )
    layout = "nested" if example.is_nested else example.layout
    if layout != torch.strided or example.is_complex() or example.is_quantized:
        raise ValueError(
            f"{name} must be dense and of a real floating type, not {layout}, {example.dtype}."
        )
    ids = example.dtype in (torch.int32, torch.int64)
    if example.ndim < (1 if ids else 2) or 0 in example.shape:
        raise ValueError(
            f"{name} must have shape (batch, ...) without an empty axis, "
            f"not {tuple(example.shape)}."
        )
    parameter = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    kind = example.dtype if ids else parameter.dtype
    return torch.zeros((2, *example.shape[1:]), dtype=kind, device=parameter.device)


def _trace(module: nn.Module, arguments: _Arguments) -> ExportedProgram:
    # Parameters made in inference mode can be traced only there, all others only outside of it.
    tensors = (*module.parameters(), *module.buffers())
    mode = torch.inference_mode(any(tensor.is_inference() for tensor in tensors))
    with mode, torch.no_grad(), warnings.catch_warnings(), _quiet(), _as_it_was(module):
        warnings.simplefilter("ignore")
        args, kwargs = pytree.tree_map(torch.clone, arguments)
        shapes = ShapesCollection()
        for tensor in (*args, *kwargs.values()):
            shapes[tensor] = {0: Dim.DYNAMIC}
        hook = module.register_forward_hook(lambda module, args, result: _with_fields(result))
        try:
            program = torch.export.export(
                module, args, kwargs, dynamic_shapes=shapes, strict=False
            ).run_decompositions({})
        except Exception as error:
            if any(text in str(error) for text in _FIXED_BATCH):
                raise UnsupportedOperatorError(
                    "the module fixes or mixes the batch axis, samples must be independent; "
                    f"torch.export says: {error}"
                ) from error
            raise ValueError(f"torch.export cannot trace the module: {error}") from error
        finally:
            hook.remove()
    kept = (OutputKind.USER_OUTPUT, OutputKind.USER_INPUT_MUTATION)
    changed = [s.target for s in program.graph_signature.output_specs if s.kind not in kept]
    if changed:
        raise ValueError(
            f"the module changes its buffers when it runs: {', '.join(map(str, changed))}."
        )
    return program


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    """Take out again what the module puts into itself when it runs: it would stay a fake."""
    kept: list[tuple[Any, Any]] = []
    for part in module.modules():
        for held in (vars(part), *vars(part).values()):
            if isinstance(held, (dict, list, set)):
                kept.append((held, copy.copy(held)))
    try:
        yield
    finally:
        for held, before in kept:
            held.clear()
            (held.extend if isinstance(held, list) else held.update)(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging and printing what failed, which is raised as well."""
    names = ("torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes")
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    try:
        for logger in levels:
            logger.setLevel(logging.CRITICAL)
        with redirect_stderr(io.StringIO()) as printed:
            yield
        print(printed.getvalue(), end="", file=sys.stderr)  # the module's own, if nothing failed
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _with_fields(result: Any) -> Any:
    """A dataclass as a dictionary, which torch.export can return."""
    if dataclasses.is_dataclass(result):
        fields = (field.name for field in dataclasses.fields(result))
        return {name: _with_fields(getattr(result, name)) for name in fields}
    return result


# --- The walk over the trace --------------------------------------------------------------------


class _Unknown:
    """Stands for a value that an unsupported operator would have made."""


class _Conversion:
    """Walks a traced program and fills a Graph.

    ``values`` holds for each traced node a Graph node's name where it depends on an input,
    otherwise a tensor or number; several results are a list.
    """

    def __init__(self, program: ExportedProgram, names: Sequence[str]) -> None:
        self.program = program
        self.names = dict(zip(program.graph_signature.user_inputs, names))
        """Names of inputs where they are not those of the trace, which has no capitals."""
        self.graph = Graph()
        self.values: dict[fx.Node, Any] = {}
        self.labels: dict[fx.Node, str] = {}
        self.places: dict[fx.Node, Place] = {}
        """Where those that depend on an input have the batch."""
        self.problems: list[str] = []
        self.batches: set[Any] = set()
        """The sizes, as symbols, that stand for the batch."""
        self.of_many: dict[fx.Node, Any] = {}
        """What a constant is in a batch of many, where the batch size enters; else as of one."""

    def run(self) -> Graph:
        traced = self.program.graph_module.graph
        restore(traced)
        traced.eliminate_dead_code()
        self._read_placeholders(traced)
        for node in traced.nodes:
            if node.op == "call_function":
                self.values[node] = self._evaluate(node)
        if self.problems:
            raise refusal(self.problems)
        (results,) = next(node for node in traced.nodes if node.op == "output").args
        outputs = self._outputs(results)
        if self.problems:
            raise refusal(self.problems)
        self.graph.outputs = check_outputs(self.graph, outputs)
        return self.graph

    def _outputs(self, results: Sequence[Any]) -> dict[str, Any]:
        """What became of each output; those that are None are left out."""
        specs = self.program.graph_signature.output_specs  # inputs changed in place are among them
        own = [value for value, spec in zip(results, specs) if spec.kind == OutputKind.USER_OUTPUT]
        structure = self.program.call_spec.out_spec
        assert structure is not None
        places, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(own, structure))
        outputs: dict[str, Any] = {}
        for path, value in places:
            if value is None:
                continue
            name = _output_name(path)
            if not isinstance(value, fx.Node) or name in outputs:
                what = "there twice" if name in outputs else f"{value!r}, no tensor"
                raise ValueError(f"the output {name!r} is {what}; wrap the module.")
            outputs[name] = self.values[value]
            if self.places.get(value, HOME) != HOME:
                shape = tuple(value.meta["val"].shape)
                self.problems.append(f"the output {name!r} of shape {shape}: {BATCH_AXIS}")
        if not outputs:
            raise ValueError("the module returns no tensor.")
        return outputs

    def _read_placeholders(self, traced: fx.Graph) -> None:
        specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        tensors = {**self.program.state_dict, **self.program.constants}
        conditions: list[str] = []
        for node in traced.nodes:
            if node.op == "get_attr":
                self.values[node] = getattr(self.program.graph_module, node.target)
            if node.op != "placeholder":
                continue
            spec = specs[node.name]
            if spec.kind == InputKind.USER_INPUT:
                batch, *sample = node.meta["val"].shape
                self.batches.add(batch.node.expr)
                conditions = _conditions(batch.node.shape_env)
                name = self.names.get(node.name, node.name)
                content: Content = "numbers" if node.meta["val"].is_floating_point() else "ids"
                self.values[node] = self.graph.add(name, Input(tuple(sample), content))
                self.places[node] = HOME
            else:
                self.values[node] = tensors.get(spec.target)
                self.labels[node] = str(spec.target)
        self.problems += conditions  # of all inputs the same

    def _evaluate(self, node: fx.Node) -> Any:
        result = node.meta.get("val")
        if result is None or isinstance(result, (int, float, *_SYMBOLS)):
            return result  # sizes, and torch's own assertions
        name = operator_name(node.target)
        call = Call(node, self.graph, self.values, self.labels, self.places)
        sources = [self.values[source] for source in node.all_input_nodes]
        try:
            depends = any(value is _Unknown or is_data(value) for value in sources)
            filled = name in _FILLED and not is_data(call["src"])
            if depends and name != "getitem" and name not in TABLE and not filled:
                raise Unsupported("")
            if any(value is _Unknown for value in sources):
                return _Unknown
            if not depends or filled:
                return self._evaluate_constant(node)
            self._refuse_what_differs(node)
            self.places[node] = made = self._place(call, name, result)
            call = Call(node, self.graph, self.values, self.labels, self.places, made)
            for argument, value in call.arguments.items():
                # The whole batch is a slice up to its size, as _place has seen.
                whole = argument in ("end", "length") and call["dim"] % call.rank == made.axis
                call.require(
                    whole or not isinstance(value, _SYMBOLS),
                    f"{argument} is computed from the batch size or from the input",
                )
            if name == "getitem":
                value = self.values[node.args[0]][node.args[1]]
                call.require(value is not None, "only its first result is available")
            else:
                value = TABLE[name](call)
            if isinstance(value, str):
                shape = self.graph[value].shape
                call.require(shape == call.shape, f"shape {shape} came out instead of {call.shape}")
            return value
        except (Unsupported, ValueError) as error:
            path, kind = module_of(node)
            where = f" (module {path!r}, {kind.rpartition('.')[2]})" if path else ""
            reason = f": {error}" if str(error) else ""
            self.problems.append(f"{node.target} at node {call.name!r}{where}{reason}")
            return _Unknown

    def _evaluate_constant(self, node: fx.Node) -> Any:
        """An operator on parameters alone, for a batch of one where the batch size enters."""
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise Unsupported("it draws random numbers")
        one = self._call(node, 1)
        if any(
            n in self.of_many or isinstance(self.values[n], _SYMBOLS) or is_data(self.values[n])
            for n in node.all_input_nodes
        ):
            self.of_many[node] = self._call(node, _MANY)
        return one

    def _refuse_what_differs(self, node: fx.Node) -> None:
        """Refuse constants that are not the same for each sample of a batch of many."""
        for source in filter(self._differs, node.all_input_nodes):
            first = source
            while before := next(filter(self._differs, first.all_input_nodes), None):
                first = before
            raise Unsupported(
                f"the values of {first.target} depend on the batch size; samples must be "
                "independent"
            )

    def _differs(self, constant: fx.Node) -> bool:
        many = self.of_many.get(constant)
        return many is not None and not _repeats(many, self.values[constant])

    def _call(self, node: fx.Node, batch: int) -> Any:
        """Call an operator on constants, in a batch of so many."""

        def value_of(argument: Any) -> Any:
            value = self.values[argument] if isinstance(argument, fx.Node) else argument
            if isinstance(value, _SYMBOLS):
                times = self._times(value) if isinstance(value, torch.SymInt) else 0
                if not times:
                    raise Unsupported(f"{value} is computed from the batch size or from the input")
                return times * batch
            if is_data(value) and isinstance(argument, fx.Node):
                like = argument.meta["val"]  # only its shape and type are read
                place = self.places[argument]
                shape = place.full(place.sample(like.shape), batch)
                return torch.empty(shape, dtype=like.dtype, device=like.device)
            return value if batch == 1 else self.of_many.get(argument, value)

        args, kwargs = fx.node.map_aggregate((node.args, node.kwargs), value_of)
        try:
            with torch.inference_mode(False), torch.no_grad():
                return cast(Callable[..., Any], node.target)(*args, **kwargs)
        except Exception as error:  # whatever torch, or somebody's own operator, raises
            raise Unsupported(f"it fails on constants: {error}") from error

    def _place(self, call: Call, name: str, result: Any) -> Place:
        """Where the result has the batch: in the one axis whose size depends on it."""
        shape = (result if isinstance(result, torch.Tensor) else result[0]).shape
        axes = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
        times = [self._times(shape[axis]) for axis in axes]
        sources = [n for n in call.node.all_input_nodes if is_data(self.values[n])]
        places = [self.places[source] for source in sources]
        refused = f"{BATCH_AXIS} (result of shape {tuple(shape)})"
        try:
            call.require(len(axes) == 1 and times[0] > 0, refused)
            if name in VIEWS:
                before, behind = shape[: axes[0]], shape[axes[0] + 1 :]
                made = call.place.viewed(call.input_shape, tuple(before), tuple(behind))
            else:
                made = replace(places[0], axis=axes[0])
                if len(sources) > 1 and name not in UNALIGNED:
                    ranks = [n.meta["val"].ndim for n in sources]
                    common(list(zip(places, ranks)), max(ranks))
            call.require(made.axis == axes[0] and made.outer * made.inner == times[0], refused)
            known = {made, *places} == {HOME} or (name in BESIDE and made == call.place)
            call.require(name not in CHANNELS or (known and made.axis == 0), refused)
        except Unsupported as error:
            raise Unsupported(refused) from error
        return made

    def _times(self, size: Any) -> int:
        """How often a size has that of the batch as a factor of nothing but a number, else 0."""
        found = [size.node.expr / batch for batch in self.batches]
        return next((int(times) for times in found if times.is_Integer), 0)


def _conditions(shapes: Any) -> list[str]:
    """What of the batch size, two while it is traced, decided which way a module went.

    That several inputs have batches of one size is no such condition: it always holds.
    """
    told = []
    for guard in shapes.guards:
        symbols = guard.expr.free_symbols
        size = min(symbols, key=str)
        condition = guard.expr.xreplace(dict.fromkeys(symbols, size))
        if condition.free_symbols:
            told.append(
                f"the condition {condition} on the batch size {size} {guard.sloc}; "
                "samples must be independent"
            )
    return list(dict.fromkeys(told))


def _repeats(many: Any, one: Any) -> bool:
    """Whether results for a batch of many are those for a batch of one, for each sample again."""
    return all(
        a.ndim == b.ndim and _holds(a, b)
        for a, b in zip(pytree.tree_leaves(many), pytree.tree_leaves(one))
        if isinstance(a, torch.Tensor)
    )


def _holds(many: torch.Tensor, one: torch.Tensor) -> bool:
    """Whether a tensor holds another once, or one after the other along axes that are longer."""
    counts = [n // max(m, 1) for n, m in zip(many.shape, one.shape)]
    expected = one.tile(counts) if many.shape != one.shape else one
    if expected.shape != many.shape:
        return False
    if not one.is_floating_point():
        return bool(torch.equal(many, expected))
    # A matrix product of many rows may be summed in another order than that of one.
    finite = one[one.isfinite()].detach()
    size = float(finite.abs().amax()) if len(finite) else 0.0
    return bool(torch.allclose(many, expected, rtol=0.0, atol=1e-6 * size))


def _output_name(path: Sequence[Any]) -> str:
    """An output's name, from where it stands in what the module returns."""
    parts = [
        str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path
    ]
    if not path or isinstance(path[0], pytree.SequenceKey):
        parts.insert(0, "output")
        parts[:2] = ["_".join(parts[:2])]
    return ".".join(parts)
