"""The bindings trust no caller: sound calls with one thing changed run or are refused in words.

The calls are those that compiling and running random graphs makes. Only under the address
sanitizer (`make asan`) would a read beyond an array be sure to show.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cases import numbers
from fuzzing import fuzz
from relprop import Explainer, _core
from relprop.devices import default_device, gpu_of
from relprop.graph import Graph
from relprop.rules import Rule
from test_whole_graphs import graphs

Call = tuple[str, list[Any], dict[str, Any]]

REFUSED = (ValueError, TypeError, IndexError, RuntimeError)
WHOLE = (-(2**31), -1, 0, 1, 2, 7, 1000, 2**30, 2**31 - 1, 2**63)
REAL = (-1.0, 0.0, 1e-30, 1e30, math.inf, -math.inf, math.nan)
TEXT = ("", "max", "average", "relu", "value", "given", "one", "no such thing")


def new_plan() -> _core.Plan:
    return _core.Plan(gpu_of(default_device()))


class Recorder:
    """A Plan that notes every call."""

    def __init__(self) -> None:
        self.plan = new_plan()
        self.calls: list[Call] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.plan, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append((name, list(arguments), named))
            return found(*arguments, **named)

        return call


def recorded(graph: Graph, rules: dict[str, Rule]) -> list[Call]:
    """Every call that explaining two samples makes."""
    recorder = Recorder()
    with mock.patch("relprop.compile._core.Plan", return_value=recorder):
        explainer = Explainer(graph, "epsilon", rules=rules)
    rng = np.random.default_rng(0)
    x = {node.name: numbers(rng, (2, *node.shape)) for node in graph.inputs}
    output = np.ones((2, *graph[graph.output].shape), np.float32)
    explainer(x, output, intermediate=[graph.output])
    return recorder.calls


def replay(calls: list[Call]) -> Exception | None:
    """The last error of the same calls to a new Plan."""
    plan, error = new_plan(), None
    for name, arguments, named in calls:
        try:
            getattr(plan, name)(*arguments, **named)
        except REFUSED as refused:
            error = refused
    return error


def changed_array(draw: Callable[[Any], Any], array: np.ndarray) -> np.ndarray:
    array = array.copy()
    way = draw(st.sampled_from(["dtype", "short", "axis", "strided", "read-only", "value"]))
    if way == "dtype":
        wanted = draw(st.sampled_from([np.float64, np.int32, np.int64, np.float32, bool, "U1"]))
        # What an earlier change made text of need not be a number's.
        return np.zeros(array.shape, wanted) if array.dtype.kind == "U" else array.astype(wanted)
    if way == "short" and array.ndim:
        axis = draw(st.integers(0, array.ndim - 1))
        return np.ascontiguousarray(np.delete(array, 0, axis)) if array.shape[axis] else array
    if way == "axis":
        return array[None]
    if way == "strided" and array.ndim:
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if way == "read-only":
        array.flags.writeable = False
    elif way == "value" and array.size:
        at = draw(st.integers(0, array.size - 1))
        if array.dtype.kind == "f":
            array.flat[at] = draw(st.sampled_from(REAL))
        elif array.dtype.kind == "i":
            info = np.iinfo(array.dtype)
            array.flat[at] = draw(st.sampled_from([info.min, -2, -1, 1, 2, 10**6, info.max]))
    return array


def changed(draw: Callable[[Any], Any], value: Any) -> Any:
    """The value with one thing in it that is another."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.sampled_from([None, "text", 3, 0.5, (), [1], np.zeros(3, np.float32)]))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draw(st.sampled_from([*WHOLE, value - 1, value + 1]))
    if isinstance(value, float):
        return draw(st.sampled_from(REAL))
    if isinstance(value, str):
        return draw(st.sampled_from(TEXT))
    if isinstance(value, tuple | list) and value:
        at = draw(st.integers(0, len(value) - 1))
        rest = list(value)
        rest[at : at + 1] = [] if draw(st.booleans()) else [changed(draw, value[at])]
        return type(value)(rest)
    if isinstance(value, np.ndarray):
        other = changed_array(draw, value)
        other.flags.writeable &= value.flags.writeable  # dense layers want it so
        return other
    return value


def changed_calls(draw: Callable[[Any], Any], calls: list[Call]) -> list[Call]:
    """The calls with one to three things changed."""
    calls = list(calls)
    for _ in range(draw(st.integers(1, min(3, len(calls))))):
        at = draw(st.integers(0, len(calls) - 1))
        name, arguments, named = calls[at]
        which = draw(st.sampled_from([*range(len(arguments)), *named]))
        arguments, named = list(arguments), dict(named)
        if isinstance(which, int):
            arguments[which] = changed(draw, arguments[which])
        else:
            named[which] = changed(draw, named[which])
        way = draw(st.sampled_from(["replace", "replace", "replace", "repeat", "drop"]))
        call: list[Call] = [(name, arguments, named)]
        calls[at : at + 1] = {"replace": call, "repeat": [calls[at], *call], "drop": []}[way]
    return calls


@fuzz(60)
@given(drawn=graphs(), data=st.data())
@np.errstate(all="ignore")
def test_changed_calls_run_or_are_refused(drawn, data) -> None:
    """Ten times: to draw a graph takes as long as to change and repeat its calls so often."""
    calls = recorded(*drawn)
    assert replay(calls) is None
    for _ in range(10):
        replay(changed_calls(data.draw, calls))


@pytest.mark.parametrize("name", [n for n in dir(_core.Plan) if not n.startswith("_")])
@fuzz(10)
@given(data=st.data())
def test_nonsense(name: str, data: st.DataObject) -> None:
    plan = new_plan()
    if not callable(getattr(plan, name)):
        return
    nonsense = st.lists(st.sampled_from([None, "", 0, -1, 0.5, (1, 1, 1), [], np.zeros(1)]))
    with suppress(*REFUSED):
        getattr(plan, name)(*data.draw(nonsense))


def test_relevance_that_nobody_would_hand_down_is_refused() -> None:
    plan = new_plan()
    first, unread = (plan.input((1, 1, 1, 3), False) for _ in range(2))
    made = plan.activation(first, "tanh", 0.0, "pass", False)
    with pytest.raises(ValueError, match=f"every tensor but the output must be read; {unread} is"):
        plan.finish(made)


def test_as_many_arrays_as_inputs() -> None:
    plan = new_plan()
    plan.finish(plan.add([plan.input((1, 1, 1, 3), False) for _ in range(2)], 1e-6, False, False))
    x, scores = np.ones((2, 3), np.float32), np.empty((2, 3), np.float32)
    with pytest.raises(ValueError, match="inputs must hold 2 arrays, not 1"):
        plan.run([x], scores)
    with pytest.raises(ValueError, match="relevance must hold 2 arrays, not 3"):
        plan.run([x, x], scores, relevance=[x, x, x], targets=np.zeros(2, np.int64))
    with pytest.raises(ValueError, match=r"inputs must have shape \(2, 3\), not \(1, 3\)"):
        plan.run([x, x[:1]], scores)
