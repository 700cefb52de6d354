"""The Graph: its nodes, its inputs and outputs, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from cases import numbers
from relprop import graph as g


def test_names_and_arity() -> None:
    graph = g.Graph()
    graph.add("x", g.Input((3,)))
    with pytest.raises(ValueError, match="node name 'x' is taken"):
        graph.add("x", g.Identity(), ["x"])
    with pytest.raises(ValueError, match="node 'y' reads 'z', which is not in the graph yet"):
        graph.add("y", g.Identity(), ["z"])
    with pytest.raises(ValueError, match=r"node 'y' \(Add\) cannot take 1 inputs"):
        graph.add("y", g.Add(), ["x"])
    with pytest.raises(ValueError, match=r"node 'y' \(Mul\) cannot take 3 inputs"):
        graph.add("y", g.Mul(), ["x", "x", "x"])
    with pytest.raises(ValueError, match=r"node 'y' has \d+ values; a node has at most 2147483647"):
        graph.add("y", g.Input((2**16, 2**15)))
    with pytest.raises(ValueError, match="the graph must have one input, not 0"):
        _ = g.Graph().input


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_parameters_must_be_finite(value: float) -> None:
    graph = g.Graph()
    graph.add("x", g.Input((3,)))
    weight = np.ones((2, 3), np.float32)
    weight[1, 2] = value
    with pytest.raises(ValueError, match=r"node 'y' \(Dense\): weight must be finite"):
        graph.add("y", g.Dense(weight), ["x"])
    with pytest.raises(ValueError, match=r"node 'y' \(Dense\): bias must be finite"):
        graph.add("y", g.Dense(np.ones((2, 3), np.float32), weight[1, 1:]), ["x"])


def test_reading_a_graph() -> None:
    graph = g.Graph()
    graph.add("image", g.Input((3, 4, 4)))
    graph.add("conv", g.Conv(numbers(np.random.default_rng(0), (2, 3, 3, 3))), ["image"])
    graph.add("sum", g.Add(), ["conv", "conv"])
    assert graph.output == "sum"
    assert graph.input.name == "image"
    assert [node.type for node in graph] == ["Input", "Conv", "Add"]
    assert [node.name for node in graph.consumers()["conv"]] == ["sum", "sum"]
    assert len(graph) == 3
    assert str(graph).splitlines()[1].split() == ["conv", "Conv", "(2,", "2,", "2)", "image"]


def test_inputs_outputs_and_what_leads_to_one() -> None:
    graph = g.Graph()
    for name in ("a", "b", "unread"):
        graph.add(name, g.Input((3,)))
    graph.add("left", g.Activation("relu"), ["a"])
    graph.add("both", g.Add(), ["left", "b"])
    graph.add("dead", g.Activation("tanh"), ["b"])
    assert graph.outputs == {"dead": "dead"}
    graph.outputs = {"one": "left", "two": "both", "same": "both"}
    assert [node.name for node in graph.inputs] == ["a", "b", "unread"]
    for name, text in (("input", r"3: \['a', 'b', 'unread'\]"), ("output", r"3: \['one', 'two'")):
        with pytest.raises(ValueError, match=rf"must have one {name}, not {text}"):
            getattr(graph, name)
    assert list(graph.pruned().nodes) == ["a", "b", "unread", "left", "both"]
    part = graph.explaining("one")
    assert (list(part.nodes), part.output) == (["a", "b", "unread", "left"], "left")
    assert graph.outputs == {"one": "left", "two": "both", "same": "both"}
    with pytest.raises(ValueError, match="output must name one of the model's outputs"):
        graph.explaining()
    graph.outputs["four"] = "none"
    with pytest.raises(ValueError, match="output 'four' names 'none', which is no node"):
        graph.explaining("four")
