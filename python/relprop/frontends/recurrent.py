"""What recurrent layers are in a Graph, for every front end: their steps, one after the other.

Each step's pre-activations are one dense layer of input and state side by side, so that a rule
sees all that they are a sum of. Gates end in a sigmoid, which ``SignalTakesAll`` looks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from relprop.frontends.conversion import Builder, Unsupported
from relprop.graph import (
    Activation,
    Add,
    Array,
    Concat,
    Dense,
    Function,
    Mul,
    Operator,
    Reshape,
    Slice,
)

MOST_STEPS = 2000
"""How many steps, over all layers and directions, are written out."""

State = tuple[str | None, ...]
"""What a step hands to the next one, the hidden state first; None is zero, and left out of sums."""


class Cell(Protocol):
    """One layer in one direction."""

    def step(self, call: Builder, x: str, state: State) -> State:
        """The next state, of this step's input and the state before it."""
        ...


class Affine:
    """A dense layer of an input and a state side by side, whose arrays all steps share."""

    def __init__(self, x: Array, state: Array, bias: Array | None) -> None:
        self.alone = Dense(np.ascontiguousarray(x), bias)
        self.joint = Dense(np.concatenate([x, state], 1), bias)

    def after(self, state: str | None) -> Dense:
        """The layer that reads what :func:`joined` makes of this state."""
        return self.alone if state is None else self.joint


@dataclass(frozen=True, eq=False)
class Weights:
    """Of one cell: for each of its pre-activations so many rows, one block below the other."""

    x: Array
    state: Array
    bias_x: Array | None = None
    bias_state: Array | None = None

    @property
    def bias(self) -> Array | None:
        """Both biases as one."""
        if self.bias_x is None or self.bias_state is None:
            return self.bias_state if self.bias_x is None else self.bias_x
        return self.bias_x + self.bias_state

    def blocks(self, count: int, *chosen: int) -> Weights:
        """Some of ``count`` blocks of rows, in the order given."""

        def of(values: Array | None) -> Array | None:
            if values is None:
                return None
            if len(values) % count:
                raise Unsupported(f"{len(values)} rows of weights are not of {count} parts")
            parts = np.split(values, count)
            return np.concatenate([parts[i] for i in chosen])

        x, state = of(self.x), of(self.state)
        assert x is not None and state is not None
        return Weights(x, state, of(self.bias_x), of(self.bias_state))

    def affine(self) -> Affine:
        """One layer of both."""
        return Affine(self.x, self.state, self.bias)


class Simple:
    """``h = f(W [x, h] + b)``."""

    def __init__(self, weights: Weights, function: Function) -> None:
        self.affine = weights.affine()
        self.function = function

    def step(self, call: Builder, x: str, state: State) -> State:
        """The next state."""
        (hidden,) = state
        made = call.emit(self.affine.after(hidden), joined(call, x, hidden))
        return (call.emit(Activation(self.function), made),)


class Lstm:
    """``c = f c + i g`` and ``h = o tanh(c)``; ``order`` says where i, f, g and o are.

    The gates are a layer of their own: no relevance reaches it, and so it is not gone through.
    """

    def __init__(
        self, weights: Weights, order: tuple[int, int, int, int], projection: Array | None = None
    ) -> None:
        i, f, g, o = order
        self.gates = weights.blocks(4, i, f, o).affine()
        self.candidate = weights.blocks(4, g).affine()
        self.projection = projection

    def step(self, call: Builder, x: str, state: State) -> State:
        """The next hidden state and the next cell."""
        hidden, cell = state
        read = joined(call, x, hidden)
        gates = _sigmoid(call, self.gates.after(hidden), read)
        candidate = _tanh(call, call.emit(self.candidate.after(hidden), read))
        made = call.emit(Mul(), _part(call, gates, 0, 3), candidate)
        if cell is not None:
            kept = call.emit(Mul(), _part(call, gates, 1, 3), cell)
            made = call.emit(Add(), kept, made)
        shown = call.emit(Mul(), _part(call, gates, 2, 3), _tanh(call, made))
        if self.projection is not None:
            shown = call.emit(Dense(self.projection), shown)
        return shown, made


class Gru:
    """``h = z h + (1 - z) n``; ``order`` says where r, z and n are.

    ``1 - z`` is the sigmoid of the negated pre-activation, and so a gate as well. The reset gate
    works on what n's weights make of the state, ``n = tanh(W x + r (U h))``, or with
    ``reset_first`` on the state itself, ``n = tanh(W x + U (r h))``.
    """

    def __init__(
        self, weights: Weights, order: tuple[int, int, int], reset_first: bool = False
    ) -> None:
        r, z, n = order
        gates, renewing = weights.blocks(3, r, z), weights.blocks(3, z)
        bias = renewing.bias
        self.gates = Affine(
            np.concatenate([gates.x, -renewing.x]),
            np.concatenate([gates.state, -renewing.state]),
            None if gates.bias is None or bias is None else np.concatenate([gates.bias, -bias]),
        )
        self.candidate = weights.blocks(3, n)
        self.affine = self.candidate.affine()
        self.of_x = Dense(self.candidate.x, self.candidate.bias_x)
        self.of_state = Dense(self.candidate.state, self.candidate.bias_state)
        self.reset_first = reset_first

    def step(self, call: Builder, x: str, state: State) -> State:
        """The next state."""
        (hidden,) = state
        gates = _sigmoid(call, self.gates.after(hidden), joined(call, x, hidden))
        renewed = call.emit(
            Mul(), _part(call, gates, 2, 3), _tanh(call, self._summed(call, x, hidden, gates))
        )
        if hidden is None:
            return (renewed,)
        return (call.emit(Add(), call.emit(Mul(), _part(call, gates, 1, 3), hidden), renewed),)

    def _summed(self, call: Builder, x: str, hidden: str | None, gates: str) -> str:
        """What the tanh reads."""
        if self.reset_first:
            if hidden is not None:
                hidden = call.emit(Mul(), _part(call, gates, 0, 3), hidden)
            return call.emit(self.affine.after(hidden), joined(call, x, hidden))
        bias = self.candidate.bias_state
        if hidden is not None:
            reset = call.emit(self.of_state, hidden)
        elif bias is not None and bias.any():
            reset = held(call, bias, x)
        else:
            return call.emit(self.of_x, x)
        reset = call.emit(Mul(), _part(call, gates, 0, 3), reset)
        return call.emit(Add(), call.emit(self.of_x, x), reset)


def joined(call: Builder, *names: str | None) -> str:
    """Nodes side by side along the last axis, without those that are zero."""
    there = [name for name in names if name is not None]
    if len(there) == 1:
        return there[0]
    return call.emit(Concat(len(call.graph[there[0]].shape) - 1), *there)


def held(call: Builder, values: Array, beside: str) -> str:
    """A constant as a part of data, cut out of what it is joined with.

    As the signal of a gate it then takes the relevance, which a Constant leaves to the other.
    """
    *outer, _ = call.graph[beside].shape
    width = values.shape[-1]
    constant = call.constant("state", np.broadcast_to(values, (*outer, width)))
    return call.emit(Slice(len(outer), 0, width), joined(call, constant, beside))


def _sigmoid(call: Builder, operator: Operator, name: str) -> str:
    return call.emit(Activation("sigmoid"), call.emit(operator, name))


def _tanh(call: Builder, name: str) -> str:
    return call.emit(Activation("tanh"), name)


def _part(call: Builder, name: str, position: int, count: int) -> str:
    """One of equal parts along the last axis."""
    *outer, size = call.graph[name].shape
    width = size // count
    return call.emit(Slice(len(outer), position * width, (position + 1) * width), name)


def taken(call: Builder, name: str, axis: int, position: int) -> str:
    """What is at one place along an axis, without that axis."""
    shape = call.graph[name].shape
    part = call.emit(Slice(axis, position, position + 1), name)
    return call.emit(Reshape((*shape[:axis], *shape[axis + 1 :])), part)


def steps_of(call: Builder, name: str, axis: int, times: int) -> list[str]:
    """The nodes along the axis of time, which are read by so many cells."""
    length = call.graph[name].shape[axis]
    if length * times > MOST_STEPS:
        raise Unsupported(
            f"{length} steps in {times} layers and directions; at most {MOST_STEPS} in all are "
            "written out"
        )
    return [taken(call, name, axis, position) for position in range(length)]


def stacked(call: Builder, names: Sequence[str], axis: int) -> str:
    """Nodes one after the other along an axis of their own."""
    shape = call.graph[names[0]].shape
    wide = Reshape((*shape[:axis], 1, *shape[axis:]))
    parts = [call.emit(wide, name) for name in names]
    return parts[0] if len(parts) == 1 else call.emit(Concat(axis), *parts)


def unrolled(
    call: Builder, cell: Cell, steps: Sequence[str], state: State, backwards: bool = False
) -> tuple[list[str], State]:
    """The hidden state at each place in time, and the state after the last step."""
    made: list[str] = []
    for x in reversed(steps) if backwards else steps:
        state = cell.step(call, x, state)
        assert state[0] is not None
        made.append(state[0])
    return made[::-1] if backwards else made, state
