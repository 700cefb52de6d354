"""torch's recurrent layers, of any number of layers, and their cells; see ``recurrent.py``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch

from relprop.frontends.aten_call import Call, Converter, is_data, operator_name, to_array
from relprop.frontends.batch_axis import Place
from relprop.frontends.conversion import BATCH_AXIS, Unsupported, registering
from relprop.frontends.recurrent import (
    Cell,
    Gru,
    Lstm,
    Simple,
    State,
    Weights,
    held,
    joined,
    stacked,
    steps_of,
    taken,
    unrolled,
)
from relprop.graph import Array

TABLE: dict[str, Converter] = {}
_converts = registering(TABLE)


@_converts("lstm", "gru", "rnn_tanh", "rnn_relu")
def _layers(call: Call) -> list[str | None]:
    call.require("batch_sizes" not in call.arguments, "its sequences are packed")
    layers, directions = call["num_layers"], 1 + call["bidirectional"]
    call.require(not (call["train"] and call["dropout"] and layers > 1), "it is in train mode")
    name = call.data("input")
    _require_batch(call, call.raw["input"], 0 if call["batch_first"] else 1)
    time = call.axis(1 if call["batch_first"] else 0)
    steps = steps_of(call, name, time, layers * directions)
    parameters = [to_array("a weight", value) for value in call["params"]]
    each = len(parameters) // (layers * directions)
    initial = _initial(call)
    finals: list[State] = []
    for _ in range(layers):
        ways = []
        for backwards in range(directions):
            number = len(finals)
            cell = _cell(call, parameters[number * each : (number + 1) * each], call["has_biases"])
            state = tuple(_state(call, *values, steps[0], number) for values in initial)
            made, state = unrolled(call, cell, steps, state, bool(backwards))
            ways.append(made)
            finals.append(state)
        steps = [joined(call, *names) for names in zip(*ways)]
    return [stacked(call, steps, time), *(_stacked(call, states) for states in zip(*finals))]


def _stacked(call: Call, states: Sequence[str | None]) -> str:
    return stacked(call, [name for name in states if name is not None], 0)


@_converts("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def _one_step(call: Call) -> Any:
    x = call.data("input")
    _require_batch(call, call.raw["input"], 0)
    arguments = [call[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    call.require(not is_data(arguments), "its weights are computed from the input")
    parameters = [to_array("a weight", value) for value in arguments if value is not None]
    cell = _cell(call, parameters, len(parameters) > 2)
    state = tuple(_state(call, *values, x, None) for values in _initial(call))
    made = cell.step(call, x, state)
    return made[0] if len(made) == 1 else list(made)


def _cell(call: Call, parameters: Sequence[Array], biased: bool) -> Cell:
    """The cell of one layer in one direction."""
    biases = parameters[2:4] if biased else (None, None)
    weights = Weights(parameters[0], parameters[1], *biases)
    kind, _, function = operator_name(call.node.target).removesuffix("_cell").partition("_")
    if kind == "gru":
        return Gru(weights, (0, 1, 2))
    if kind == "lstm":
        more = parameters[4 if biased else 2 :]
        return Lstm(weights, (0, 1, 2, 3), more[0] if more else None)
    return Simple(weights, "relu" if function == "relu" else "tanh")


def _require_batch(call: Call, source: Any, axis: int) -> None:
    """Give up unless the batch is in one axis of an argument, merged with nothing but x's own."""
    place = call.places[source]
    call.require(place == Place(axis, call.place.outer, call.place.inner), BATCH_AXIS)


def _initial(call: Call) -> list[tuple[Any, Any]]:
    """The states to begin with, as values and in the trace."""
    values, raw = call["hx"], call.raw["hx"]
    return list(zip(values, raw)) if isinstance(values, (list, tuple)) else [(values, raw)]


def _state(call: Call, value: Any, source: Any, x: str, number: int | None) -> str | None:
    """One layer's initial state: (layers, batch, features) as a node, None where it is zero.

    Of a cell, whose ``number`` is None, it is (batch, features).
    """
    axis = 0 if number is None else 1
    if is_data(value):
        _require_batch(call, source, axis)
        return cast(str, value) if number is None else taken(call, value, 0, number)
    if value is None:
        return None
    if not isinstance(value, torch.Tensor) or value.ndim != axis + 2:
        raise Unsupported("its initial state is no tensor of layers, batch and features")
    values = to_array("the initial state", value if number is None else value[number])
    shape = (*call.place.merged, values.shape[-1])
    own = "its initial state has a value of its own for each sample"
    repeats = call.place.outer == 1 or bool((values == values[:1]).all())
    call.require(values.size == math.prod(shape) and repeats, own)
    return held(call, values.reshape(shape), x) if values.any() else None
