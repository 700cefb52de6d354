"""ONNX's recurrent operators, in one or both directions; see ``recurrent.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from relprop.frontends.batch_axis import Place
from relprop.frontends.conversion import BATCH_AXIS, registering
from relprop.frontends.onnx_call import Call, Converter
from relprop.frontends.recurrent import (
    Cell,
    Gru,
    Lstm,
    Simple,
    State,
    Weights,
    held,
    stacked,
    steps_of,
    taken,
    unrolled,
)

TABLE: dict[str, Converter] = {}

_BACKWARDS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
_USUAL = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
_BLOCKS = {"LSTM": 4, "GRU": 3, "RNN": 1}


@registering(TABLE)(*_USUAL)
def _recurrent(call: Call) -> list[str]:
    step = call.step
    x = call.data(0)
    at = int(not step.integer("layout", 0))  # where the batch is; time is in the other
    call.require(call.place == Place(at, call.place.outer, call.place.inner), BATCH_AXIS)
    way = step.text("direction", "forward")
    if way not in _BACKWARDS:
        raise ValueError(f"direction is {way!r}")
    backwards = _BACKWARDS[way]
    call.require(not step.number("clip", 0.0), "it clips what its activations read")
    call.require(not step.integer("input_forget", 0), "its input and forget gates are one")
    call.require(not call.given(7), "it has peepholes")
    functions = _functions(call, len(backwards))
    cells = _cells(call, functions)
    time = call.axis(1 - at)
    steps = steps_of(call, x, time, len(cells))
    _require_full(call, len(steps))
    parts: list[list[str]] = []
    finals: list[State] = []
    for number, cell in enumerate(cells):
        count = 2 if step.type == "LSTM" else 1
        state = tuple(_state(call, 5 + i, steps[0], number, at, time) for i in range(count))
        made, state = unrolled(call, cell, steps, state, backwards[number])
        parts.append(made)
        finals.append(state)
    call.made = replace(call.place, axis=2 * at)
    call.elsewhere = dict.fromkeys(step.outputs[1:], call.place)
    # Directions come behind time in Y, and in its place in Y_h.
    each = [stacked(call, names, time) for names in zip(*parts)]
    ends = [_stacked(call, states, time) for states in zip(*finals)]
    return [stacked(call, each, time), *ends]


def _stacked(call: Call, states: Sequence[str | None], axis: int) -> str:
    return stacked(call, [name for name in states if name is not None], axis)


def _functions(call: Call, directions: int) -> list[str]:
    """The activations of all directions, as far as there is a choice: an RNN's."""
    usual = _USUAL[call.step.type]
    given = [name.lower() for name in call.step.texts("activations")] or [*usual] * directions
    if len(given) != len(usual) * directions:
        raise ValueError(f"activations {given} are not {len(usual)} in {directions} directions")
    known = (
        set(given) <= {"tanh", "relu"}
        if call.step.type == "RNN"
        else (given == [*usual] * directions)
    )
    call.require(known, f"its activations are {', '.join(given)}")
    return given


def _cells(call: Call, functions: Sequence[str]) -> list[Cell]:
    """The cell of each direction."""
    kind = call.step.type
    x, state = call.array(1, "W", 3), call.array(2, "R", 3)
    count, directions = _BLOCKS[kind], len(functions) // len(_USUAL[kind])
    high = (directions, count * state.shape[2])
    if x.shape[:2] != high or state.shape[:2] != high:
        raise ValueError(f"W {x.shape} and R {state.shape} are not of {directions} directions")
    size = call.step.integer("hidden_size", state.shape[2])
    if size != state.shape[2]:
        raise ValueError(f"hidden_size {size} is not that of R {state.shape}")
    biases = call.array(3, "B", 2) if call.given(3) else None
    if biases is not None and biases.shape != (directions, 2 * high[1]):
        raise ValueError(f"B {biases.shape} does not fit R {state.shape}")
    cells: list[Cell] = []
    for number, function in enumerate(functions[:: len(_USUAL[kind])]):
        halves = (None, None) if biases is None else np.split(biases[number], 2)
        weights = Weights(x[number], state[number], *halves)
        if kind == "LSTM":
            cells.append(Lstm(weights, (0, 2, 3, 1)))
        elif kind == "GRU":
            after = call.step.integer("linear_before_reset", 0)
            cells.append(Gru(weights, (1, 0, 2), reset_first=not after))
        else:
            cells.append(Simple(weights, "relu" if function == "relu" else "tanh"))
    return cells


def _require_full(call: Call, length: int) -> None:
    """Give up where some sequences are shorter than others."""
    if call.given(4):
        full = all((lengths == length).all() for lengths in call.versions(4))
        call.require(full, f"its sequence_lens are not all {length}")


def _state(call: Call, position: int, x: str, number: int, axis: int, time: int) -> str | None:
    """One direction's initial state, as a node; None where it is zero.

    It has the batch at ``axis`` and, in a sample, directions where x has time.
    """
    if call.is_data(position):
        place = call.place_of(call.step.inputs[position])
        call.require(place == call.place, BATCH_AXIS)
        return taken(call, call.data(position), time, number)
    if not call.given(position):
        return None
    first = None
    for values in call.versions(position):
        if values.ndim != 3 or number >= values.shape[1 - axis] or not values.size:
            raise ValueError(f"an initial state of shape {values.shape}")
        each = np.moveaxis(values, axis, 1)[number]
        first = each[:1] if first is None else first
        own = "its initial state has a value of its own for each sample"
        call.require(bool((each == first).all()), own)
    assert first is not None
    return held(call, call.to_array(first[0], "initial state"), x) if first.any() else None
