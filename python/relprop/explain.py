"""Explainer: a model and its rules compiled once, then run on any number of images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relprop.arrays import Arrays
from relprop.canonizers import for_output
from relprop.compile import compile_plan
from relprop.composites import Composite, Initial, Matcher, assign, parameters, preset
from relprop.devices import Precision, default_device, gpu_of
from relprop.graph import Graph, Input, Shape
from relprop.inputs import Float32, Images, by_input, in_structure, read_batches
from relprop.ledger import Ledger
from relprop.methods import ManyRuns, OneRun, Runs
from relprop.model import Model
from relprop.rules import UNCONSERVED, Rule, ZBox
from relprop.shown import ShownByShapes
from relprop.targets import Start, Target, read_target


@dataclass(frozen=True, repr=False)
class Result(ShownByShapes):
    """What an :class:`Explainer` returns; arrays are of the kind that (the first) went in.

    ``relevance`` has the input's shape, or the method's (:attr:`Explainer.attribution_shape`); of
    several inputs it is a dictionary or a tuple, as they were given. ``scores`` is (samples,
    *output shape) and ``target`` (samples,), -1 where a mask or the output's relevance was given.
    ``ledger`` is None where it was switched off, or a rule conserves nothing. ``intermediate`` and
    ``activations`` hold the relevance at the outputs of the nodes that were asked for, and their
    values; a node whose ReLU is fused into it has no value of its own and is left out of
    ``activations``. ``completeness`` (samples,) is, of integrated gradients, the sum of the
    attribution less f(x) - f(baseline), and else None.
    """

    relevance: Any
    scores: Any
    target: NDArray[np.int64]
    ledger: Ledger | None
    intermediate: dict[str, Any]
    activations: dict[str, Any]
    completeness: NDArray[np.float64] | None = None


class Explainer:
    """A model with a rule for every node on the way to one output, compiled once.

    Parameters
    ----------
    model
        What :func:`relprop.load` returns, or a Graph.
    composite
        A preset's name or a Composite.
    output
        The name of the output that is explained; may be left out where there is one.
    rules
        Rules for single nodes, before the composite's: by name, operator type, position or
        predicate.
    device
        ``"cpu"``, ``"cuda"`` for the first GPU, ``"cuda:1"`` for the second; by default what the
        environment variable ``RELPROP_DEVICE`` names, or the CPU. A GPU takes arrays in its own
        memory, torch's or cupy's, where they are (small batches by a copy within that
        memory), and any others by copies from and to the host.
    precision
        How exactly a GPU computes products: ``"float32"``, or faster with factors rounded to 10
        bits (``"tf32"``) or 7 (``"bf16"``); docs/gpu.md has the errors.
    ledger
        Whether to account for absorbed relevance. It costs a few percent. Where a rule is one
        that conserves nothing, such as :class:`relprop.rules.Gradient`, there is none.
    parameters
        The preset's parameters, such as ``epsilon=1e-9``. ``low`` and ``high`` default to the
        bounds that the model's preprocessing implies.

    Raises
    ------
    UnmatchedLayerError
        If a node has no rule that applies to it.
    TypeError, ValueError
        If the model, the output, the preset or a parameter is not known or out of range.
    RuntimeError
        If the device is not available.
    """

    def __init__(
        self,
        model: Model | Graph,
        composite: str | Composite = "epsilon_plus_flat",
        *,
        output: str | None = None,
        rules: Mapping[Matcher, Rule] | None = None,
        device: str | None = None,
        precision: Precision = "float32",
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
        self.device = default_device() if device is None else device
        self._gpu = gpu_of(self.device)
        self.precision = precision
        self.model = model
        self.graph = for_output(model.graph, output)
        self.composite = composite_for(model, composite, parameters)
        self.rules = assign(self.composite, model.graph, rules, part=self.graph)
        conserves = not any(isinstance(rule, UNCONSERVED) for rule in self.rules.values())
        self.ledger = ledger and conserves
        self._check_inputs()
        self._compiled = compile_plan(self.graph, self.rules, self._gpu, precision)
        self._vocabularies = self.graph.vocabularies()
        self._boxes = [
            (node.name, node.inputs[0], rule)
            for node in self.graph
            if isinstance(rule := self.rules.get(node.name), ZBox)
            and isinstance(self.graph[node.inputs[0]].operator, Input)
        ]

    def __getstate__(self) -> dict[str, Any]:
        """All but what is compiled, which is memory of the core's: copies compile again."""
        return {name: value for name, value in vars(self).items() if name != "_compiled"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._compiled = compile_plan(self.graph, self.rules, self._gpu, self.precision)

    def __call__(
        self,
        images: Images,
        target: Target = "argmax",
        *,
        initial: Initial | None = None,
        intermediate: Iterable[str] = (),
    ) -> Result:
        """Explain images.

        Parameters
        ----------
        images
            Samples of the model's input shape with the batch axis before it, or one sample
            without; of numpy, torch or cupy, finite. float16 and float64 are converted to float32;
            integers are refused, since pixels must be preprocessed first. Where the model's
            input are ids, of words say, they must be integers, and their relevance is the sum
            over what the model's embedding makes of each. A model of several inputs takes a
            dictionary by their names or a tuple in their order, with as many samples for each;
            inputs that the output does not depend on have relevance zero.
        target
            What is explained: ``"argmax"``, a class index or name, one for each sample; or a
            boolean mask of the output's shape; or its relevance as a float array of that shape.
            An output that is no vector needs one of the latter two. A mask that depends on the
            prediction is made of what :meth:`forward` returns.
        initial
            The relevance that the target starts with: its output value, or one; by default
            what the composite says, which is one for the gradient and its family and else the
            value. A method of many runs takes nothing else.
        intermediate
            Nodes whose relevance and value are returned as well; a method of many runs has none.

        Raises
        ------
        TypeError
            If an array's type cannot be used.
        ValueError
            If a shape or a target does not fit, inputs differ in their number of samples, an
            input is not finite or outside a z_box, or the model's output or the relevance is not
            finite.
        """
        given = by_input(images, self.graph.inputs)
        batches, arrays = self._batches(given)
        n = len(next(iter(batches.values())))
        shape = self.graph[self.graph.output].shape
        start = read_target(target, n, shape, self.model)
        initial = self.composite.initial if initial is None else initial
        if initial not in ("value", "one"):
            raise ValueError(f'initial must be "value" or "one", not {initial!r}.')
        names = self._known(intermediate)
        method = self.composite.method
        if isinstance(method, ManyRuns):
            if names or initial != self.composite.initial:
                raise ValueError(
                    f"{self.composite.name} is made of many runs: intermediate must be empty, not "
                    f"{names}, and initial {self.composite.initial!r}, not {initial!r}."
                )
            return self._of_many_runs(method, images, next(iter(batches.values())), arrays, start)

        plan = self._compiled.plan
        scores = arrays.empty((n, _size(shape)))
        relevance = {name: arrays.zeros(tuple(batch.shape)) for name, batch in batches.items()}
        absorbed = np.empty((n, plan.steps, 4)) if self.ledger else None
        totals = np.empty((n, plan.tensors, 2)) if self.ledger else None
        found, values, copies = self._copies(names, n, arrays)
        plan.run(
            self._ordered(batches),
            scores,
            initial=initial if start.given is None else "given",
            argmax=start.argmax,
            targets=start.indices,
            mask=start.mask,
            given=None if start.given is None else arrays.of(start.given),
            relevance=self._ordered(relevance),
            absorbed=absorbed,
            totals=totals,
            copies=copies,
            stream=arrays.stream,
        )
        ledger = self._ledger(absorbed, totals, start, arrays.numpy(scores), initial)
        if isinstance(method, OneRun):
            for name, array in relevance.items():
                read = method.read(arrays.numpy(batches[name]), arrays.numpy(array))
                relevance[name] = arrays.of(read)
        at_inputs = {
            name: arrays.give(_without_batch(array, given[name]))
            for name, array in relevance.items()
        }
        return Result(
            relevance=in_structure(images, at_inputs),
            scores=arrays.give(scores.reshape(n, *shape)),
            target=start.indices,
            ledger=ledger,
            intermediate={name: arrays.give(array) for name, array in found.items()},
            activations={name: arrays.give(array) for name, array in values.items()},
        )

    def forward(self, images: Images) -> Any:
        """Return the output for images, (samples, *output shape), without explaining it.

        Raises
        ------
        TypeError, ValueError
            If images cannot be used, see :meth:`__call__`.
        """
        given = by_input(images, self.graph.inputs)
        batches, arrays = self._batches(given)
        n = len(next(iter(batches.values())))
        shape = self.graph[self.graph.output].shape
        scores = arrays.empty((n, _size(shape)))
        self._compiled.plan.run(self._ordered(batches), scores, stream=arrays.stream)
        return arrays.give(scores.reshape(n, *shape))

    @property
    def attribution_shape(self) -> Shape:
        """Shape of a sample's attribution, without the batch axis.

        Raises
        ------
        ValueError
            If the model has several inputs, each of which has its own.
        """
        if len(self.graph.inputs) != 1:
            raise ValueError(
                "a model of several inputs has an attribution for each: "
                f"{', '.join(node.name for node in self.graph.inputs)}."
            )
        shape = self.graph.inputs[0].shape
        method = self.composite.method
        return shape if method is None else method.attribution_shape(shape)

    def __repr__(self) -> str:
        place = f"device={self.device!r}, precision={self.precision!r}"
        return f"Explainer({self.model!r}, {self.composite.name!r}, {place})"

    def __str__(self) -> str:
        nodes = list(self.graph)
        width = max(len(node.name) for node in nodes)
        kind = max(len(node.type) for node in nodes)
        method = "" if self.composite.method is None else f", {self.composite.method}"
        lines = [f"{self.model.name}, composite {self.composite.name}{method}"]
        for node in nodes:
            rule = self.rules.get(node.name, "")
            lines.append(f"{node.name:<{width}}  {node.type:<{kind}}  {node.shape!s:<16}  {rule}")
        return "\n".join(lines)

    def _of_many_runs(
        self, method: ManyRuns, images: Images, batch: Any, arrays: Arrays, start: Start
    ) -> Result:
        """Let a method run what it likes, once it is fixed what is explained."""
        samples = arrays.numpy(batch)
        scores = self._forward(samples)
        if start.argmax:
            start = replace(start, indices=scores.argmax(axis=1), argmax=False)
        explained = start.explained(scores)
        runs = Runs(samples, explained, start, self._forward, self._backward)
        found = method.attribute(runs)
        values = arrays.of(found.values.astype(np.float32))
        (name,) = (node.name for node in self.graph.inputs)
        given = by_input(images, self.graph.inputs)[name]
        at_input = {name: arrays.give(_without_batch(values, given))}
        shape = self.graph[self.graph.output].shape
        return Result(
            relevance=in_structure(images, at_input),
            scores=arrays.give(arrays.of(scores.reshape(len(samples), *shape))),
            target=start.indices,
            ledger=None,
            intermediate={},
            activations={},
            completeness=found.completeness,
        )

    def _forward(self, images: Float32) -> Float32:
        """The scores, flat, of numpy's images for the only input."""
        scores = np.empty((len(images), _size(self.graph[self.graph.output].shape)), np.float32)
        self._compiled.plan.run([images.reshape(len(images), _size(images.shape[1:]))], scores)
        return scores

    def _backward(self, images: Float32, start: Start) -> Float32:
        """The plain relevance of numpy's images for the only input."""
        n = len(images)
        relevance = np.empty((n, _size(images.shape[1:])), np.float32)
        self._compiled.plan.run(
            [images.reshape(relevance.shape)],
            np.empty((n, _size(self.graph[self.graph.output].shape)), np.float32),
            initial=self.composite.initial if start.given is None else "given",
            argmax=start.argmax,
            targets=start.indices,
            mask=start.mask,
            given=start.given,
            relevance=[relevance],
        )
        return relevance.reshape(images.shape)

    # ---- arguments -----------------------------------------------------------------------

    def _check_inputs(self) -> None:
        """Refuse inputs that the method does not serve."""
        method, inputs = self.composite.method, self.graph.inputs
        if method is None:
            return
        ids = [node.name for node in inputs if node.ids]
        if ids:
            raise ValueError(f"{self.composite.name} needs numbers, not ids ({', '.join(ids)}).")
        if isinstance(method, ManyRuns) and len(inputs) != 1:
            raise ValueError(
                f"{self.composite.name} needs a model of one input, not of "
                f"{' and '.join(node.name for node in inputs)}."
            )
        for node in inputs:
            method.attribution_shape(node.shape)

    def _batches(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], Arrays]:
        """Every input's samples, checked."""
        batches, arrays = read_batches(given, self.graph.inputs, self._vocabularies, self._gpu)
        for name, source, box in self._boxes:
            _check_box(batches[source], box, name, arrays)
        return batches, arrays

    def _ordered(self, arrays: Mapping[str, Any]) -> list[Any]:
        """Arrays as the core takes them: flat, of the inputs that the output depends on."""
        return [
            arrays[name].reshape(-1, _size(self.graph[name].shape))
            for name in self._compiled.inputs
        ]

    def _known(self, names: Iterable[str]) -> list[str]:
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"intermediate must be names of nodes, not {name!r}.")
            if name not in self._compiled.tensors:
                close = get_close_matches(name, self._compiled.tensors, n=3)
                hint = (
                    f"did you mean {', '.join(close)}?" if close else "print(explainer) lists them."
                )
                raise ValueError(f"intermediate must name nodes; {name!r} is none; {hint}")
        return names

    def _copies(
        self, names: list[str], n: int, of: Arrays
    ) -> tuple[dict[str, Any], dict[str, Any], list[tuple[int, bool, Any]]]:
        """Arrays for the relevance and the values of nodes, and where the core fills them."""
        relevance: dict[str, Any] = {}
        values: dict[str, Any] = {}
        copies: list[tuple[int, bool, Any]] = []
        for name in names:
            shape = self.graph[name].shape
            tensor = self._compiled.tensors[name]
            wanted = [(True, relevance)]
            if name not in self._compiled.fused:
                wanted.append((False, values))
            for of_relevance, arrays in wanted:
                array = of.empty((n, _size(shape)))
                arrays[name] = array.reshape(n, *shape)
                copies.append((tensor, of_relevance, array))
        return relevance, values, copies

    def _ledger(
        self,
        absorbed: NDArray[np.float64] | None,
        totals: NDArray[np.float64] | None,
        start: Start,
        scores: NDArray[np.float32],
        initial: Initial,
    ) -> Ledger | None:
        if absorbed is None or totals is None:
            return None
        started = start.relevance(scores, initial)
        names = tuple(node.name for node in self.graph if node.name in self._compiled.tensors)
        row = {name: i for i, name in enumerate(names)}
        by_node = np.zeros((len(started), len(names), 4))
        for step, name in enumerate(self._compiled.step_nodes):
            by_node[:, row[name]] += absorbed[:, step]
        masked = [self.graph[name].constant for name in names]
        by_node[:, masked, 2] += by_node[:, masked, 3]  # their rule is none of the composite's
        by_node[:, masked, 3] = 0
        at_output = totals[:, [self._compiled.tensors[name] for name in names]]
        at_inputs = totals[:, [self._compiled.tensors[name] for name in self._compiled.inputs]]
        bias, stabilizer, constants, zero = np.moveaxis(by_node, 2, 0)
        return Ledger(
            nodes=names,
            bias=bias,
            stabilizer=stabilizer,
            constants=constants,
            zero=zero,
            relevance=at_output[:, :, 0],
            magnitude=at_output[:, :, 1],
            initial=started,
            input=at_inputs[:, :, 0].sum(axis=1),
        )


def _without_batch(array: Any, given: Any) -> Any:
    """An array of one sample without the batch axis, if what was given had none."""
    return array[0] if len(np.shape(given)) < array.ndim else array


def _size(shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64))


def composite_for(
    model: Model, composite: str | Composite, values: Mapping[str, object]
) -> Composite:
    """Make a preset for a model, whose preprocessing tells the bounds of its input.

    Raises
    ------
    TypeError, ValueError
        If there is no such preset, or a parameter is unknown, missing or out of range.
    """
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


def _check_box(batch: Any, box: ZBox, name: str, arrays: Arrays) -> None:
    per_channel = (-1, *[1] * (batch.ndim - 2))
    low, high = (
        np.asarray(bound, np.float32).reshape(per_channel) for bound in (box.low, box.high)
    )
    slack = np.float32(1e-5) * np.maximum(np.abs(low), np.abs(high))
    if not arrays.within(batch, low - slack, high + slack):
        values = arrays.numpy(batch)
        raise ValueError(
            f"images must lie in z_box's bounds [{box.low}, {box.high}] (node {name!r}), "
            f"not in [{values.min():g}, {values.max():g}]."
        )
