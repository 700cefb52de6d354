"""ONNX files to Graph.

The model's nodes are walked in their order. Each operator that reads the input has one small
function in ``onnx_operators.py``; arithmetic on shapes and on constants is done on the way by
``onnx_constants.py``; ``onnx_patterns.py`` puts operators together again that exporters split.
A batch axis of any size is tried with three sizes: what comes out must not depend on which.
What cannot be represented is collected and raised in one error, as far as the output needs it.
"""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from relprop.errors import UnsupportedOperatorError
from relprop.frontends import onnx_channels, onnx_constants, onnx_operators
from relprop.frontends.batch_axis import HOME, Place
from relprop.frontends.conversion import (
    BATCH_AXIS,
    Shapes,
    Unsupported,
    check_outputs,
    refusal,
    shapes_of,
)
from relprop.frontends.masks import truths_of
from relprop.frontends.onnx_call import Call, Known, rows
from relprop.frontends.onnx_conditions import count_ids
from relprop.frontends.onnx_patterns import whole_operator
from relprop.frontends.onnx_steps import LARGEST, Step
from relprop.frontends.onnx_tensors import FLOATS, INTEGERS, Storage, Tensor, type_name
from relprop.graph import Content, Graph, Input, Shape

FIRST_OPSET = 9
LARGEST_FILE = 2**31 - 1
"""What protobuf can hold; larger models keep their tensors in files of their own."""

_ANY_BATCH = (1, 1009, 2003)
"""The size that a model may treat otherwise, and two unlike any that it would be made for."""


def convert(path: Path, shapes: Shapes | None = None) -> Graph:
    """Turn an ONNX file into a Graph.

    Parameters
    ----------
    path
        The model, with inputs whose first axis is the batch (of any size, or of 1). Files of
        external data must lie in its folder.
    shapes
        The shape of one sample without the batch axis, of several inputs by their order or
        their names; needed where the model leaves it open.

    Raises
    ------
    UnsupportedOperatorError
        If the Graph cannot represent some operators, or they do not fit what they are given; the
        message lists all of them.
    ValueError
        If the file is no sound ONNX model, or an output does not depend on an input.
    OSError
        If it, or a file of external data, cannot be read.
    """
    try:
        return _Conversion(_read(path), Storage(path)).run(shapes)
    except _ShapeOpen as error:
        text = f"example is needed: {path.name} leaves the shape of a sample open{error}."
        raise ValueError(text) from None
    except UnsupportedOperatorError as error:
        raise UnsupportedOperatorError(f"{path.name}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


class _ShapeOpen(ValueError):
    """The model does not tell the shape of a sample."""


def _read(path: Path) -> onnx.ModelProto:
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(f"an ONNX file has at most {LARGEST_FILE} bytes, not {size}.")
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError(f"this is no ONNX file, or not all of it: {error}.") from None
    if not model.HasField("graph") or not model.graph.node:
        raise ValueError("this is no ONNX file, or it holds no graph.")
    return model


@dataclass(frozen=True, eq=False)
class _Unknown:
    """Stands for a value that could not be made, and why, or for want of which others."""

    problem: int | None
    sources: tuple[_Unknown, ...] = ()

    def problems(self) -> list[int]:
        """The numbers of all problems that stand in the way, in the model's order."""
        seen, ahead = {self}, [self]
        while ahead:
            new = set(ahead.pop().sources) - seen
            seen |= new
            ahead += new
        return sorted(value.problem for value in seen if value.problem is not None)


class _Conversion:
    """Walks an ONNX model and fills a Graph.

    ``values`` holds for each ONNX value what became of it: a Graph node's name, known arrays (see
    ``onnx_call.Known``) or that it is unknown; ``makers`` the standard operators that made them
    and ``tensors`` initialisers. In a branch, its own names lie above those around it.
    """

    def __init__(self, model: onnx.ModelProto, storage: Storage) -> None:
        self.model = model.graph
        self.outputs = [str(output.name) for output in self.model.output]
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for name, node in _read_by(self.model.node):
            self.readers.setdefault(name, []).append(node)
        self.opset = _opset(model)
        self.storage = storage
        self.graph = Graph()
        self.batches: tuple[int, ...]
        self.values: ChainMap[str, str | Known | _Unknown] = ChainMap()
        self.makers: ChainMap[str, Step] = ChainMap()
        self.tensors: ChainMap[str, onnx.TensorProto] = ChainMap()
        self.places: dict[str, Place] = {}
        """Where values that depend on the input have the batch, if it is not first."""
        self.problems: list[str] = []

    def run(self, shapes: Shapes | None) -> Graph:
        names = self.outputs
        if not names or len(set(names)) != len(names):
            raise ValueError(f"the model must have outputs of different names, not {names}.")
        self._read_inputs(shapes)
        self._walk(self.model)
        outputs = {name: self._value(name, ()) for name in names}
        unknown = _Unknown(None, tuple(v for v in outputs.values() if isinstance(v, _Unknown)))
        if unknown.sources:
            raise refusal(self.problems[number] for number in unknown.problems())
        astray = [name for name in names if self.places.get(name, HOME) != HOME]
        if astray:
            raise refusal(f"the output {name!r}: {BATCH_AXIS}" for name in astray)
        self.graph.outputs = check_outputs(self.graph, outputs)
        return self.graph.pruned()

    # --- The inputs ---

    def _read_inputs(self, given: Shapes | None) -> None:
        defaults = {str(tensor.name) for tensor in self.model.initializer}
        values = [value for value in self.model.input if value.name not in defaults]
        inputs = {str(value.name): value for value in values}
        if not inputs or len(inputs) != len(values):
            names = [str(value.name) for value in values]
            raise ValueError(f"the model must have inputs of different names, not {names}.")
        self.batches = _ANY_BATCH
        for name, shape in shapes_of(given, list(inputs)).items():
            self._read_input(name, inputs[name].type.tensor_type, shape)

    def _read_input(self, name: str, kind: Any, given: Shape | None) -> None:
        truths = kind.elem_type == onnx.TensorProto.BOOL
        if kind.elem_type not in (*FLOATS, *INTEGERS) and not truths:
            raise ValueError(
                f"the input {name!r} must be of a float type, of integers that are ids or of bool, "
                f"not {type_name(kind.elem_type)}."
            )
        dims = [dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim]
        if not kind.HasField("shape"):
            if given is None:
                raise _ShapeOpen
            dims = [None] * (1 + len(given))
        ids = truths or kind.elem_type in INTEGERS
        if len(dims) < (1 if ids else 2):
            raise ValueError(f"the input {name!r} must have the shape (batch, ...), not {dims}.")
        batch, *sample = dims
        if batch not in (None, 1):
            raise ValueError(
                f"the model is made for batches of {batch}; export it for any size, or for 1."
            )
        if batch is not None:  # of any input: then of all
            self.batches = (1,)
        known = [size for size in sample if size is not None]
        if given is None and len(known) < len(sample):
            raise _ShapeOpen(f", {name} {sample}")
        wanted = tuple(known) if given is None else given
        fits = len(wanted) == len(sample) and all(
            size in (None, own) for own, size in zip(wanted, sample)
        )
        if not fits:
            raise ValueError(
                f"the input {name!r} takes samples of shape {sample}, not {list(wanted)}."
            )
        if np.prod(wanted, dtype=float) > LARGEST:
            raise ValueError(f"a sample of shape {list(wanted)} is too large.")
        content: Content = "ids" if ids else "numbers"
        made = self.graph.add(name or "input", Input(wanted, content))
        self.values[name] = truths_of(self.graph, made) if truths else made

    # --- The walk ---

    def _walk(self, graph: onnx.GraphProto) -> None:
        """Take in the initialisers of the model or of a branch, and go through its nodes."""
        if graph.sparse_initializer:
            raise ValueError("sparse initialisers are not read.")
        made = Counter(str(name) for node in graph.node for name in node.output if name)
        named = made + Counter(str(tensor.name) for tensor in graph.initializer)
        twice = [
            n for n, count in named.items() if count > 1 or n in self.values or n in self.tensors
        ]
        if twice:
            raise ValueError(f"the same value is made several times: {', '.join(twice)}.")
        self.tensors.update((str(tensor.name), tensor) for tensor in graph.initializer)
        for node in graph.node:
            step = Step(node, self.opset, self.storage)
            for name in step.inputs:
                if name:
                    self._value(name, made)
            if not step.domain:
                self.makers.update(dict.fromkeys(step.outputs, step))
            results = self._results(step)
            if isinstance(results, _Unknown):
                results = [results] * len(step.outputs)
            for name in step.outputs[len(results) :]:
                self.values[name] = self._give_up(step, f"it has {len(results)} results")
            self.values.update(zip(step.outputs, results))

    def _value(self, name: str, made: Iterable[str]) -> str | Known | _Unknown:
        """What an ONNX value became; initialisers are read when they are asked for."""
        if name not in self.values:
            if name not in self.tensors:
                reason = (
                    "is read before it is made: the nodes are out of order, or form a cycle"
                    if name in made
                    else "is read and never made"
                )
                raise ValueError(f"value {name!r} {reason}.")
            try:
                value = (self.storage.read(self.tensors[name]),)
            except ValueError as error:
                raise ValueError(f"{error}.") from error
            # Beside its tensor: what several branches read is read once.
            level = [name in tensors for tensors in self.tensors.maps].index(True)
            self.values.maps[level][name] = value
        return self.values[name]

    def _results(self, step: Step) -> Sequence[str | Known | _Unknown] | _Unknown:
        inputs = [self.values[name] for name in step.inputs if name]
        try:
            if step.type == "If" and not step.domain:
                return self._chosen_branch(step)
            call = Call(
                step,
                self.graph,
                self.batches,
                self.values,
                self.tensors,
                self.makers,
                self.places,
                self.readers,
                self.outputs,
            )
            if any(not isinstance(value, tuple) for value in inputs):
                whole = None if step.domain else whole_operator(call)
                if whole is not None:
                    return self._placed(step, call, [whole])
            unknown = [value for value in inputs if isinstance(value, _Unknown)]
            data = bool(unknown) or any(isinstance(value, str) for value in inputs)
            table: Any = onnx_operators.TABLE if data else onnx_constants.TABLE
            if step.domain or step.type not in table:
                closure = any(attribute.HasField("g") for attribute in step.attributes.values())
                return self._give_up(step, "" if data or closure else "on constants", unknown)
            if unknown:
                return _Unknown(None, tuple(unknown))
            if not data:
                return [self._evaluated(step)]
            if step.type in onnx_channels.TABLE:
                call.require({call.place_of(name) for name in call.sources} == {HOME}, BATCH_AXIS)
            elif step.type not in onnx_operators.UNALIGNED:
                call.require_common_place()
            if step.type not in onnx_operators.KNOWS_IDS:
                count_ids(call)
            result = table[step.type](call)
            return self._placed(step, call, result if isinstance(result, list) else [result])
        except (Unsupported, ValueError) as error:
            return self._give_up(step, str(error))

    def _placed(self, step: Step, call: Call, results: Sequence[Any]) -> Sequence[Any]:
        """The same, with the batch where the call has left it."""
        self.places.update({**dict.fromkeys(step.outputs, call.made), **call.elsewhere})
        return results

    def _give_up(self, step: Step, reason: str, others: Iterable[_Unknown] = ()) -> _Unknown:
        self.problems.append(f"{step}{reason and ': '}{reason}")
        return _Unknown(len(self.problems) - 1, tuple(others))

    def _evaluated(self, step: Step) -> Known:
        """An operator on known values, for each batch size where that enters."""
        known: list[Any] = [self.values[name] if name else None for name in step.inputs]
        count = max((len(value) for value in known if value is not None), default=1)
        results: list[Tensor] = []
        for version in range(count):
            inputs = [None if v is None else v[version if len(v) > 1 else 0] for v in known]
            if count > 1 and step.type in ("Expand", "Tile", "ConstantOfShape"):
                inputs[-1] = self._in_few_rows(inputs[-1], version)
            elif count > 1 and step.type == "Range" and [inputs[0], inputs[2]] == [0, 1]:
                inputs[1] = self._in_few_rows(inputs[1], version)  # the samples' own numbers
            elif count > 1 and step.type == "Shape":
                inputs[0] = self._in_all_rows(known[0], version)
            results.append(onnx_constants.evaluate(step, inputs))
        same = all(np.array_equal(results[0], other) for other in results[1:])
        return (results[0],) if same else tuple(results)

    def _in_few_rows(self, shape: Any, version: int) -> Any:
        """A shape that begins with the batch axis, for as many rows as tell that it was there.

        They are made in earnest, so that what counts or adds them up depends on the batch size,
        and one, two and three, since what reads them may be large.
        """
        if shape is not None and shape.size and shape.flat[0] == self.batches[version]:
            shape = shape.copy()
            shape.flat[0] = rows(version)
        return shape

    def _in_all_rows(self, versions: Known, version: int) -> Tensor:
        """The other way round: what was made in few rows, of the shape that it stands for."""
        few = all(v.shape[:1] == (rows(i),) for i, v in enumerate(versions))
        first = versions[version]
        shape = (self.batches[version], *first.shape[1:]) if few else first.shape
        return np.broadcast_to(first.dtype.type(), shape)

    def _chosen_branch(self, step: Step) -> Sequence[str | Known | _Unknown]:
        """The results of an If whose condition is known: its branch runs in its place."""
        condition = self.values.get(step.inputs[0]) if step.inputs else None
        if not isinstance(condition, tuple):
            raise Unsupported("its condition depends on the input")
        if len(condition) != 1 or condition[0].size != 1:
            raise Unsupported("its condition depends on the size of the batch, or is no single one")
        branch = step.branch("then_branch" if condition[0].all() else "else_branch")
        outer = self.values, self.makers, self.tensors
        self.values = self.values.new_child()
        self.makers = self.makers.new_child()
        self.tensors = self.tensors.new_child()
        try:
            self._walk(branch)
            names = [str(output.name) for output in branch.output]
            self.places.update(zip(step.outputs, (self.places.get(n, HOME) for n in names)))
            return [self._value(name, ()) for name in names]
        finally:
            self.values, self.makers, self.tensors = outer


def _opset(model: onnx.ModelProto) -> int:
    """The version of the standard operators that the model is written for."""
    versions = [int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    if len(versions) != 1 or not FIRST_OPSET <= versions[0] <= newest:
        raise ValueError(
            f"the model must be of one opset between {FIRST_OPSET} and {newest}, not {versions}."
        )
    return versions[0]


def _read_by(nodes: Iterable[onnx.NodeProto]) -> Iterable[tuple[str, onnx.NodeProto]]:
    """The names that nodes read, once per reading, in branches too, and the nodes."""
    for node in nodes:
        yield from ((str(name), node) for name in node.input)
        for attribute in node.attribute:
            yield from _read_by(attribute.g.node)
            yield from ((str(output.name), node) for output in attribute.g.output)
