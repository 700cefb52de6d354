"""Counts of parameters and multiply-adds, against torch's own and by hand."""

from __future__ import annotations

import dataclasses
from typing import get_args

import numpy as np
import pytest

from relprop import costs
from relprop import graph as g

WITHOUT_PRODUCTS = {"Embedding", "LayerNorm", "GroupNorm"}
"""Operators whose weight is only looked up, or multiplies each value once."""


def test_every_layer_with_a_weight_is_counted() -> None:
    weighted = {
        kind
        for kind in get_args(g.Operator)
        if "weight" in {field.name for field in dataclasses.fields(kind)}
    }
    counted = {kind.__name__ for kind in costs._POSITIONS}
    assert {kind.__name__ for kind in weighted} == counted | WITHOUT_PRODUCTS


def test_shared_weights_count_once_but_work_twice() -> None:
    graph = g.Graph()
    weight = np.ones((4, 4), np.float32)
    graph.add("x", g.Input((3, 4)))
    graph.add("a", g.Dense(weight), ["x"])
    graph.add("b", g.Dense(weight, np.ones(4, np.float32)), ["a"])
    graph.add("scale", g.Constant(np.ones((3, 1), np.float32)))
    graph.add("out", g.Mul(), ["b", "scale"])
    assert [costs.parameters(node) for node in graph] == [0, 16, 20, 3, 0]
    assert costs.total_parameters(graph) == 23
    assert [costs.multiply_adds(graph, node) for node in graph] == [0, 48, 48, 0, 0]


def test_matrix_products_are_counted() -> None:
    graph = g.Graph()
    graph.add("x", g.Input((2, 3, 4)))
    graph.add("scores", g.MatMul(transposed=True), ["x", "x"])
    assert costs.multiply_adds(graph, graph["scores"]) == 2 * 3 * 3 * 4


@pytest.mark.parametrize("name", ["squeezenet", "mobilenet_v2", "waveform", "scan"])
def test_counts_are_those_of_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from branching_networks import BRANCHING
    from networks import NETWORKS, initialise
    from relprop.loading import load

    if name in NETWORKS:
        module, shape = initialise(NETWORKS[name][0]()), (3, 64, 64)
    else:
        module, (shape,) = BRANCHING[name].module(), BRANCHING[name].inputs.values()
    graph = load(module, shape).graph
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, *shape))
    found = sum(costs.multiply_adds(graph, node) for node in graph)
    assert 2 * found == counter.get_total_flops()
    if name == "squeezenet":  # batch norm is folded elsewhere
        assert costs.total_parameters(graph) == sum(p.numel() for p in module.parameters())
