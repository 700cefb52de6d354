"""A module that torch.export traced, to Graph.

Each aten operator of the trace has one small function in ``aten.py``; what no function covers is
collected and raised in one error. An operator whose inputs are all parameters (weight
normalisation, say) is evaluated here and becomes a parameter of the Graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from relprop.frontends.aten import KNOWS_IDS, TABLE, UNALIGNED
from relprop.frontends.aten_call import VIEWS, Call, is_data, operator_name, where
from relprop.frontends.aten_channels import BESIDE
from relprop.frontends.aten_channels import TABLE as CHANNELS
from relprop.frontends.aten_conditions import count_ids, own_sample
from relprop.frontends.aten_patterns import restore
from relprop.frontends.batch_axis import HOME, Place, common
from relprop.frontends.conversion import BATCH_AXIS, Unsupported, check_outputs, refusal
from relprop.frontends.masks import truths_of
from relprop.graph import Content, Graph, Input

_SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)

# What takes shape and type, but no values, from a first tensor that may depend on the input.
_FILLED = {
    "zeros_like",
    "new_zeros",
    "ones_like",
    "new_ones",
    "full_like",
    "new_full",
    "fill",
    "copy",
}

# Whose sums may be rounded otherwise in a batch of many than for one sample.
_ROUNDED = {"linear", "addmm", "mm", "bmm", "matmul", "einsum", "convolution"}

# One sample and so many must have the same constants. Two would not do: torch.ones(2, 4).triu(-1)
# is full; nor an odd number, for what asks for parity.
_MANY = 8


class _Unknown:
    """Stands for a value that an unsupported operator would have made."""


class Conversion:
    """Walks a traced program and fills a Graph.

    ``values`` holds for each traced node a Graph node's name where it depends on an input,
    otherwise a tensor or number; several results are a list.
    """

    def __init__(self, program: ExportedProgram, traced: fx.Graph, names: Sequence[str]) -> None:
        self.program = program
        self.traced = traced
        """The program's graph, or a copy of it."""
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
        self.differing: set[fx.Node] = set()
        """Constants that are not the same for each sample of a batch of many."""

    def run(self) -> Graph:
        """The graph; raises UnsupportedOperatorError that lists what cannot be represented."""
        traced = self.traced
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
        specs = iter(self.program.graph_signature.input_specs)  # as the placeholders one by one
        tensors = {**self.program.state_dict, **self.program.constants}
        conditions: list[str] = []
        for node in traced.nodes:
            if node.op == "get_attr":
                self.values[node] = getattr(self.program.graph_module, node.target)
            if node.op != "placeholder":
                continue
            spec = next(specs)
            if spec.kind == InputKind.USER_INPUT:
                batch, *sample = node.meta["val"].shape
                self.batches.add(batch.node.expr)
                conditions = _conditions(batch.node.shape_env)
                name = self.names.get(spec.arg.name, spec.arg.name)
                content: Content = "numbers" if node.meta["val"].is_floating_point() else "ids"
                made = self.graph.add(name, Input(tuple(sample), content))
                truths = node.meta["val"].dtype == torch.bool
                self.values[node] = truths_of(self.graph, made) if truths else made
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
            samples = node.args[1][0] if name == "index" else None
            samples = samples if samples in self.differing else None
            self._refuse_what_differs(node, samples)
            self.places[node] = made = self._place(call, name, result)
            call = Call(node, self.graph, self.values, self.labels, self.places, made)
            if samples is not None:
                own_sample(call, self.of_many[samples])
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
                if name not in KNOWS_IDS:
                    count_ids(call)
                value = TABLE[name](call)
            if isinstance(value, str):
                shape = self.graph[value].shape
                call.require(shape == call.shape, f"shape {shape} came out instead of {call.shape}")
            return value
        except (Unsupported, ValueError) as error:
            reason = f": {error}" if str(error) else ""
            self.problems.append(f"{node.target} at node {call.name!r}{where(node)}{reason}")
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
            many = self._call(node, _MANY)
            if operator_name(node.target) in _ROUNDED and _repeats(many, one, rounded=True):
                many = _repeated(one, many.shape)
            self.of_many[node] = many
            if not _repeats(many, one):
                self.differing.add(node)
        return one

    def _refuse_what_differs(self, node: fx.Node, allowed: fx.Node | None) -> None:
        """Refuse to let data meet a constant that differs from sample to sample."""
        first = node
        while found := [
            source
            for source in first.all_input_nodes
            if source in self.differing and source is not allowed
        ]:
            first = found[0]
        if first is not node:
            raise Unsupported(
                f"the values of {first.target} depend on the batch size; samples must be "
                "independent"
            )

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


def _repeats(many: Any, one: Any, rounded: bool = False) -> bool:
    """Whether results for a batch of many are those for a batch of one, for each sample again."""
    return all(
        a.ndim == b.ndim and _holds(a, b, rounded)
        for a, b in zip(pytree.tree_leaves(many), pytree.tree_leaves(one))
        if isinstance(a, torch.Tensor)
    )


def _holds(many: torch.Tensor, one: torch.Tensor, rounded: bool) -> bool:
    """Whether a tensor holds another once, or one after the other along axes that are longer."""
    expected = _repeated(one, many.shape)
    if torch.equal(many, expected):
        return True
    comparable = rounded and expected.shape == many.shape
    return comparable and bool((many - expected).abs().max() <= 1e-6 * expected.abs().max())


def _repeated(one: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """A tensor as often as it fits into a shape along each axis."""
    counts = [n // max(m, 1) for n, m in zip(shape, one.shape)]
    return one.tile(counts) if one.shape != shape else one


def _output_name(path: Sequence[Any]) -> str:
    """An output's name, from where it stands in what the module returns."""
    parts = [
        str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path
    ]
    if not path or isinstance(path[0], pytree.SequenceKey):
        parts.insert(0, "output")
        parts[:2] = ["_".join(parts[:2])]
    return ".".join(parts)
