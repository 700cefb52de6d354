"""Explainer: a model and its rules compiled once, then run on any number of images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from relprop import _core
from relprop.compile import compile_plan
from relprop.composites import Composite, Matcher, assign, parameters, preset
from relprop.graph import Graph, Shape
from relprop.ledger import Ledger
from relprop.model import Model
from relprop.rules import Rule, ZBox

Images: TypeAlias = Any
"""A numpy array or a torch tensor."""

Float32 = NDArray[np.float32]
Target: TypeAlias = int | str | Sequence[int | str] | Images
"""A class index or name, one for each sample, "argmax", or the output's relevance itself."""


@dataclass(frozen=True)
class Result:
    """What an :class:`Explainer` returns; arrays are of the kind that went in.

    ``relevance`` has the input's shape. ``scores`` is (samples, outputs) and ``target``
    (samples,), -1 where the output's relevance was given. ``ledger`` is None where it was
    switched off. ``intermediate`` and ``activations`` hold the relevance at the outputs of the
    nodes that were asked for, and their values; a node whose ReLU is fused into it has no
    value of its own and is left out of ``activations``.
    """

    relevance: Any
    scores: Any
    target: NDArray[np.int64]
    ledger: Ledger | None
    intermediate: dict[str, Any]
    activations: dict[str, Any]


class Explainer:
    """A model with a rule for every node, compiled once.

    Parameters
    ----------
    model
        What :func:`relprop.load` returns, or a Graph.
    composite
        A preset's name or a Composite.
    rules
        Rules for single nodes, before the composite's: by name, operator type, position or
        predicate.
    device
        ``"cpu"``; the CUDA side is not complete yet.
    ledger
        Whether to account for absorbed relevance. It costs a few percent.
    parameters
        The preset's parameters, such as ``epsilon=1e-9``. ``low`` and ``high`` default to the
        bounds that the model's preprocessing implies.

    Raises
    ------
    UnmatchedLayerError
        If a node has no rule that applies to it.
    TypeError, ValueError
        If the model, the preset or a parameter is not known or out of range.
    RuntimeError
        If the device is not available.
    """

    def __init__(
        self,
        model: Model | Graph,
        composite: str | Composite = "epsilon_plus_flat",
        *,
        rules: Mapping[Matcher, Rule] | None = None,
        device: str = "cpu",
        ledger: bool = True,
        **parameters: object,
    ) -> None:
        if isinstance(model, Graph):
            model = Model(model)
        if not isinstance(model, Model):
            raise TypeError(
                f"model must be a Model or a Graph, not {type(model).__name__}; "
                "relprop.load(module, example) makes one from a torch module."
            )
        _check_device(device)
        self.model = model
        self.graph = model.graph
        self.composite = composite_for(model, composite, parameters)
        self.rules = assign(self.composite, self.graph, rules)
        self.ledger = ledger
        self._compiled = compile_plan(self.graph, self.rules)
        self._boxes = [
            (node.name, rule)
            for node in self.graph
            if isinstance(rule := self.rules.get(node.name), ZBox)
            and node.inputs == (self.graph.input.name,)
        ]

    def __call__(
        self,
        images: Images,
        target: Target = "argmax",
        *,
        initial: Literal["value", "one"] = "value",
        intermediate: Iterable[str] = (),
    ) -> Result:
        """Explain images.

        Parameters
        ----------
        images
            Samples of the model's input shape with the batch axis before it, or one sample
            without; numpy or torch, finite. float16 and float64 are converted to float32;
            integers are refused, since pixels must be preprocessed first. Where the model's
            input are ids, of words say, they must be integers, and their relevance is the sum
            over what the model's embedding makes of each.
        target
            What is explained: ``"argmax"``, a class index or name, one for each sample, or
            the output's relevance as a float array of the output's shape.
        initial
            The relevance that the target starts with: its output value, or one.
        intermediate
            Nodes whose relevance and value are returned as well.

        Raises
        ------
        TypeError
            If an array's type cannot be used.
        ValueError
            If a shape or a target does not fit, an input is not finite or outside a z_box,
            or the model's output or the relevance is not finite.
        """
        batch = self._batch(images)
        n = len(batch)
        out_shape = self.graph[self.graph.output].shape
        targets, given = self._targets(target, n, out_shape)
        if initial not in ("value", "one"):
            raise ValueError(f'initial must be "value" or "one", not {initial!r}.')
        names = self._known(intermediate)

        plan = self._compiled.plan
        flat = batch.reshape(n, -1) if n else batch.reshape(0, _size(self.graph.input.shape))
        scores = np.empty((n, _size(out_shape)), np.float32)
        relevance = np.empty_like(flat)
        absorbed = np.empty((n, plan.steps, 4)) if self.ledger else None
        totals = np.empty((n, plan.tensors, 2)) if self.ledger else None
        found, values, copies = self._copies(names, n)
        plan.run(
            flat,
            scores,
            initial="given" if given is not None else initial,
            argmax=isinstance(target, str) and target == "argmax",
            targets=targets,
            given=given,
            relevance=relevance,
            absorbed=absorbed,
            totals=totals,
            copies=copies,
        )
        started = given.astype(np.float64).sum(axis=1) if given is not None else None
        if started is None:
            row = scores[np.arange(n), targets].astype(np.float64)
            started = row if initial == "value" else np.ones(n)
        ledger = self._ledger(absorbed, totals, started)
        like = _like(images)
        return Result(
            relevance=like(relevance.reshape(np.shape(images))),
            scores=like(scores.reshape(n, *out_shape)),
            target=targets,
            ledger=ledger,
            intermediate={name: like(array) for name, array in found.items()},
            activations={name: like(array) for name, array in values.items()},
        )

    def forward(self, images: Images) -> Any:
        """Return the model's output for images, (samples, *output shape), without explaining."""
        batch = self._batch(images)
        shape = self.graph[self.graph.output].shape
        scores = np.empty((len(batch), _size(shape)), np.float32)
        flat = batch.reshape(len(batch), _size(self.graph.input.shape))
        self._compiled.plan.run(flat, scores)
        return _like(images)(scores.reshape(len(batch), *shape))

    def __str__(self) -> str:
        nodes = list(self.graph)
        width = max(len(node.name) for node in nodes)
        kind = max(len(node.type) for node in nodes)
        lines = [f"{self.model.name}, composite {self.composite.name}"]
        for node in nodes:
            rule = self.rules.get(node.name, "")
            lines.append(f"{node.name:<{width}}  {node.type:<{kind}}  {node.shape!s:<16}  {rule}")
        return "\n".join(lines)

    # ---- arguments -----------------------------------------------------------------------

    def _batch(self, images: Images) -> Float32:
        """Images as one contiguous float32 array with a batch axis, checked."""
        array = _to_numpy(images, "images")
        ids = self.graph.input.ids
        if ids and array.dtype.kind not in "iu":
            raise TypeError(
                f"images must be integers, the model's input are ids, not {array.dtype}."
            )
        if not ids and array.dtype.kind != "f":
            raise TypeError(
                f"images must be floating point, not {array.dtype}: pixels must be scaled as the "
                "model expects (see Model.preprocessing) before they are explained."
            )
        shape = self.graph.input.shape
        if array.shape == shape:
            array = array[None]
        if array.shape[1:] != shape:
            raise ValueError(
                f"images must have shape (samples, {', '.join(map(str, shape))}) or {shape}, "
                f"not {array.shape}."
            )
        if ids:
            _check_ids(array, self.graph.vocabularies()[self.graph.input.name])
        with np.errstate(over="ignore"):
            batch = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(batch).all():
            bad = np.flatnonzero(~np.isfinite(batch.reshape(len(batch), -1)).all(axis=1))
            raise ValueError(
                f"images must be finite in float32; samples {bad[:8].tolist()} are not."
            )
        for name, box in self._boxes:
            _check_box(batch, box, name)
        return batch

    def _targets(
        self, target: Target, n: int, shape: Shape
    ) -> tuple[NDArray[np.int64], Float32 | None]:
        """Target indices, to be filled in for argmax, or the output's relevance."""
        if isinstance(target, str) and target == "argmax":
            _require_vector(shape, "argmax")
            return np.zeros(n, np.int64), None
        if not isinstance(target, int | str | np.integer) and not _has_names(target):
            array = _to_numpy(target, "target")
            if array.dtype.kind == "f":
                return np.full(n, -1, np.int64), _given(array, n, shape)
        _require_vector(shape, "a class")
        return self._indices(target, n, shape[0]), None

    def _indices(self, target: Any, n: int, outputs: int) -> NDArray[np.int64]:
        if isinstance(target, int | str | np.integer):
            target = [target] * n
        elif not _has_names(target):
            target = _to_numpy(target, "target").reshape(-1).tolist()
        if len(target) != n:
            raise ValueError(
                f"target must name one class for each of {n} samples, not {len(target)}."
            )
        indices = [self.model.class_index(t) if isinstance(t, str) else t for t in target]
        for index in indices:
            if not isinstance(index, int | np.integer) or isinstance(index, bool):
                raise TypeError(f"target must be an index or a class name, not {index!r}.")
            if not 0 <= index < outputs:
                raise ValueError(f"target must be in [0, {outputs}), not {index}.")
        return np.array(indices, np.int64).reshape(n)

    def _known(self, names: Iterable[str]) -> list[str]:
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if name not in self._compiled.tensors:
                close = get_close_matches(name, self._compiled.tensors, n=3)
                hint = (
                    f"did you mean {', '.join(close)}?" if close else "print(explainer) lists them."
                )
                raise ValueError(f"intermediate must name nodes; {name!r} is none; {hint}")
        return names

    def _copies(
        self, names: list[str], n: int
    ) -> tuple[dict[str, Float32], dict[str, Float32], list[tuple[int, bool, Float32]]]:
        """Arrays for the relevance and the values of nodes, and where the core fills them."""
        relevance: dict[str, Float32] = {}
        values: dict[str, Float32] = {}
        copies: list[tuple[int, bool, Float32]] = []
        for name in names:
            shape = self.graph[name].shape
            tensor = self._compiled.tensors[name]
            wanted = [(True, relevance)]
            if name not in self._compiled.fused:
                wanted.append((False, values))
            for of_relevance, arrays in wanted:
                array = np.empty((n, _size(shape)), np.float32)
                arrays[name] = array.reshape(n, *shape)
                copies.append((tensor, of_relevance, array))
        return relevance, values, copies

    def _ledger(
        self,
        absorbed: NDArray[np.float64] | None,
        totals: NDArray[np.float64] | None,
        initial: NDArray[np.float64],
    ) -> Ledger | None:
        if absorbed is None or totals is None:
            return None
        names = tuple(node.name for node in self.graph if node.name in self._compiled.tensors)
        row = {name: i for i, name in enumerate(names)}
        by_node = np.zeros((len(initial), len(names), 4))
        for step, name in enumerate(self._compiled.step_nodes):
            by_node[:, row[name]] += absorbed[:, step]
        at_output = totals[:, [self._compiled.tensors[name] for name in names]]
        bias, stabilizer, constants, zero = np.moveaxis(by_node, 2, 0)
        return Ledger(
            nodes=names,
            bias=bias,
            stabilizer=stabilizer,
            constants=constants,
            zero=zero,
            relevance=at_output[:, :, 0],
            magnitude=at_output[:, :, 1],
            initial=initial,
            input=totals[:, 0, 0],
        )


def _size(shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _check_device(device: str) -> None:
    kind = device.split(":")[0]
    if kind == "cpu":
        return
    if kind != "cuda":
        raise ValueError(f'device must be "cpu" or "cuda", not {device!r}.')
    built = "is compiled but not complete yet" if _core.with_cuda else "was not compiled"
    raise RuntimeError(f'device must be "cpu": the CUDA side of this build {built}.')


def composite_for(
    model: Model, composite: str | Composite, values: Mapping[str, object]
) -> Composite:
    """Make a preset for a model, whose preprocessing tells the bounds of its input."""
    if isinstance(composite, Composite):
        if values:
            raise TypeError(
                f"parameters ({', '.join(values)}) go with a preset's name, not with a Composite."
            )
        return composite
    if not isinstance(composite, str):
        raise TypeError(
            f"composite must be a preset's name or a Composite, not {type(composite).__name__}."
        )
    values = dict(values)
    if "low" in parameters(composite) and model.preprocessing is not None:
        low, high = model.preprocessing.bounds()
        values = {"low": low, "high": high, **values}
    return preset(composite, **values)


def _check_ids(array: NDArray[Any], vocabulary: int) -> None:
    unknown = array[(array < 0) | (array >= vocabulary)]
    if unknown.size:
        raise ValueError(
            f"images must hold ids in [0, {vocabulary}), the rows of the model's embedding, "
            f"not {unknown[0]}."
        )


def _check_box(batch: Float32, box: ZBox, name: str) -> None:
    per_channel = (-1, *[1] * (batch.ndim - 2))
    low, high = (
        np.asarray(bound, np.float32).reshape(per_channel) for bound in (box.low, box.high)
    )
    slack = 1e-5 * np.maximum(np.abs(low), np.abs(high))
    if ((batch < low - slack) | (batch > high + slack)).any():
        raise ValueError(
            f"images must lie in z_box's bounds [{box.low}, {box.high}] (node {name!r}), "
            f"not in [{batch.min():g}, {batch.max():g}]."
        )


def _require_vector(shape: Shape, what: str) -> None:
    if len(shape) != 1:
        raise ValueError(
            f"target can be {what} only for a model whose output is a vector, not of shape "
            f"{shape}; give the output's relevance as an array."
        )


def _has_names(target: Any) -> bool:
    return isinstance(target, list | tuple) and any(isinstance(t, str) for t in target)


def _given(array: NDArray[Any], n: int, shape: Shape) -> Float32:
    """The output's relevance, (samples, outputs)."""
    if array.shape not in ((n, *shape), shape if n == 1 else (n, *shape)):
        raise ValueError(
            f"target given as relevance must have shape {(n, *shape)}, not {array.shape}."
        )
    given = np.ascontiguousarray(array, np.float32).reshape(n, -1 if n else _size(shape))
    if not np.isfinite(given).all():
        raise ValueError("target given as relevance must be finite.")
    return given


def _is_torch(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == "torch"


def _to_numpy(value: Any, name: str) -> NDArray[Any]:
    if _is_torch(value):
        value = value.detach()
        if value.device.type != "cpu":
            raise TypeError(f"{name} must be on the CPU, not on {value.device}.")
        if value.is_complex() or str(value.dtype) == "torch.bfloat16":
            raise TypeError(f"{name} must be float32, float64 or float16, not {value.dtype}.")
        return np.asarray(value.numpy())
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be an array of numbers, not of {array.dtype}.")
    return array


def _like(images: Images) -> Any:
    """Return what turns a numpy array into the kind of array that ``images`` is."""
    if not _is_torch(images):
        return lambda array: array
    import torch

    return torch.from_numpy
