"""What runs take at least, counted once more by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cases import numbers
from relprop import Graph, rules
from relprop import graph as g
from relprop.benchmark.floors import Ceilings, Floor, Work, Works, total, works
from relprop.compile import compile_plan

IMAGE = 4 * 5 * 5
"""Values of a tensor here, and what follows has of it."""


def counted(graph: Graph, chosen: dict[str, rules.Rule]) -> Works:
    assigned = {node.name: rules.Pass() for node in graph if node.inputs} | chosen
    return works(graph, assigned, compile_plan(graph, assigned))


def conv(graph: Graph, name: str, source: str) -> str:
    weight = numbers(np.random.default_rng(0), (4, 4, 3, 3), "normal")
    return graph.add(
        name, g.Conv(weight, np.ones(4, np.float32), padding=((1, 1), (1, 1))), [source]
    )


def begun(*, rectified: bool) -> Graph:
    """An input of known or of any sign."""
    graph = Graph()
    graph.add("input", g.Input((4, 5, 5)))
    graph.add("before", g.Activation("relu" if rectified else "tanh"), ["input"])
    return graph


@pytest.mark.parametrize(
    ("rule", "of_known_sign", "of_any_sign"),
    [
        (rules.Gradient(), 1, 1),
        (rules.Epsilon(), 1, 1),
        (rules.Flat(), 0, 0),
        (rules.WSquare(), 1, 1),
        (rules.ZPlus(), 2, 4),
        (rules.AlphaBeta(2, 1), 3, 6),
        (rules.Gamma(), 3, 6),
        (rules.ZBox(-6, 6), 4, 4),
    ],
)
def test_products_on_the_way_back(rule: rules.Rule, of_known_sign: int, of_any_sign: int) -> None:
    """As the table of docs/performance.md has them, with the forward pass's one."""
    for rectified, products in ((True, of_known_sign), (False, of_any_sign)):
        graph = begun(rectified=rectified)
        conv(graph, "layer", "before")
        forward, backward = counted(graph, {"layer": rule})["layer"]
        assert forward.multiply_adds == 9 * 4 * IMAGE
        assert backward.multiply_adds == products * forward.multiply_adds


@pytest.mark.parametrize(
    ("rule", "behind", "products"),
    [
        (rules.Gamma(), rules.Epsilon(), 2),  # both messages are one
        (rules.Gamma(), rules.Flat(), 3),
        (rules.AlphaBeta(2, 1), rules.Epsilon(), 3),
        (rules.AlphaBeta(2, 1), rules.Flat(), 4),  # the ReLU is fused, and z not kept
    ],
)
def test_products_where_a_relu_follows(rule: rules.Rule, behind: rules.Rule, products: int) -> None:
    graph = begun(rectified=True)
    conv(graph, "layer", "before")
    graph.add("relu", g.Activation("relu"), ["layer"])
    conv(graph, "behind", "relu")
    _, backward = counted(graph, {"layer": rule, "behind": behind})["layer"]
    assert backward.multiply_adds == products * 9 * 4 * IMAGE


def test_depthwise_layers_sum_both_parts() -> None:
    graph = begun(rectified=True)
    weight = numbers(np.random.default_rng(0), (4, 1, 3, 3), "normal")
    graph.add("layer", g.Conv(weight, None, padding=((1, 1), (1, 1)), groups=4), ["before"])
    _, backward = counted(graph, {"layer": rules.AlphaBeta(2, 1)})["layer"]
    assert backward.multiply_adds == 4 * 9 * IMAGE


@pytest.mark.parametrize(
    ("rule", "images"),
    [
        (rules.Gradient(), 2),  # relevance comes and goes
        (rules.Epsilon(), 4),  # beside the input and z
        (rules.ZPlus(), 3),
        (rules.AlphaBeta(2, 1), 4),
        (rules.Flat(), 2),
    ],
)
def test_what_a_layer_moves(rule: rules.Rule, images: int) -> None:
    graph = begun(rectified=True)
    conv(graph, "layer", "before")
    forward, backward = counted(graph, {"layer": rule})["layer"]
    weights = 9 * 4 * 4 + 4
    assert (forward.values, forward.weights) == (2 * IMAGE, weights)
    reads = 0 if isinstance(rule, rules.Flat) else weights
    assert (backward.values, backward.weights) == (images * IMAGE, reads)


def test_what_a_residual_block_moves() -> None:
    graph = begun(rectified=True)
    conv(graph, "layer", "before")
    graph.add("sum", g.Add(), ["layer", "before"])
    chosen: dict[str, rules.Rule] = {"layer": rules.Epsilon(), "sum": rules.Epsilon()}
    found = counted(graph, chosen)
    forward, backward = found["sum"]
    assert forward == Work(values=3 * IMAGE)
    assert backward == Work(values=(1 + 3 + 2) * IMAGE)  # R; the sum and its branches; their shares
    # its share joins the sum's; the sum has sent its message, and so it does not read z
    assert found["layer"][1].values == 4 * IMAGE
    assert found["before"][0] == Work(values=2 * IMAGE)
    assert found["before"][1] == Work(values=0)  # relevance stays where it is
    gradient = counted(graph, {name: rules.Gradient() for name in ("before", "layer", "sum")})
    assert gradient["sum"][1] == Work(values=3 * IMAGE)
    assert gradient["before"][1] == Work(values=3 * IMAGE)  # and the value that the gate asks


def test_what_layers_move_that_are_sent_their_message() -> None:
    graph = begun(rectified=True)
    conv(graph, "left", "before")
    conv(graph, "right", "before")
    graph.add("both", g.Concat(0), ["left", "right"])
    graph.add("last", g.Conv(np.ones((4, 8, 1, 1), np.float32)), ["both"])
    found = counted(graph, {name: rules.Epsilon() for name in ("left", "right", "last")})
    assert found["last"][1].values == (1 + 2 + 1 + 2) * IMAGE  # s; both, which it hands down to; z
    assert found["both"][1].values == (2 + 2 + 2) * IMAGE  # what comes, goes, and whose z it reads
    assert found["right"][1].values == 3 * IMAGE  # s, x, and what it hands down
    assert found["left"][1].values == 4 * IMAGE  # which joins that


def test_what_other_steps_move() -> None:
    graph = begun(rectified=True)
    graph.add("pool", g.MaxPool((5, 5), (5, 5)), ["before"])
    graph.add("flat", g.Reshape((4,)), ["pool"])
    graph.add("blocked", g.Activation("tanh"), ["flat"])
    found = counted(graph, {"pool": rules.WinnerTakesAll(), "blocked": rules.Zero()})
    assert found["pool"] == (Work(values=IMAGE + 4), Work())  # what follows hands nothing down
    assert found["blocked"] == (Work(values=8), Work())
    assert "flat" not in found  # four channels of one pixel are a list already


def test_floors() -> None:
    ceilings = Ceilings(operations=1e12, bytes=1e9)
    work = Work(multiply_adds=10**9, values=10**6, weights=10**5)
    assert work.floor(2, ceilings) == Floor(4e-3, 8.4e-3)
    assert work.floor(2, ceilings).seconds == 8.4e-3
    assert work.floor(2, Ceilings(1e12, 1e9, "bf16")).bytes == pytest.approx(8.2e-3)
    products = Work(multiply_adds=10**10)
    found = total({"one": (work, products), "other": (work, work)}, 2, ceilings)
    assert found["bound_by_operations"] == pytest.approx(40e-3)
    assert found["bound_by_bytes"] == pytest.approx(3 * 8.4e-3)
    assert found["seconds"] == pytest.approx(65.2e-3)
    assert found["gflop"] == pytest.approx(52)
    assert found["gbytes"] == pytest.approx(3 * 8.4e-3)
