"""Stages of a Plan: steps that run for one sample, for a few or for all of them at once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

import relprop
from cases import numbers
from relprop import Explainer, Graph
from relprop import graph as g
from relprop.compile import compile_plan
from relprop.composites import assign, preset

IMAGES = numbers(np.random.default_rng(1), (9, 3, 20, 20))


def network(classes: int, joined: bool = False) -> Graph:
    """Large maps with few weights, then small ones with many; a branch on both sides.

    ``joined``: the image itself is read again at the end, so that two tensors lead on everywhere.
    """
    rng = np.random.default_rng(0)

    def conv(to: int, of: int, side: int, stride: int = 1) -> g.Conv:
        weight = numbers(rng, (to, of, side, side)) * np.float32(0.1)
        return g.Conv(weight, numbers(rng, (to,)), (stride,) * 2, ((side // 2,) * 2,) * 2)

    graph = Graph()
    graph.add("input", g.Input((3, 20, 20)))
    graph.add("first", conv(16, 3, 3), ["input"])
    graph.add("relu1", g.Activation("relu"), ["first"])
    graph.add("left", conv(16, 16, 1), ["relu1"])
    graph.add("sum1", g.Add(), ["left", "relu1"])
    graph.add("strided", conv(64, 16, 3, 4), ["sum1"])
    graph.add("relu2", g.Activation("relu"), ["strided"])
    graph.add("right", conv(64, 64, 3), ["relu2"])
    graph.add("sum2", g.Add(), ["right", "relu2"])
    graph.add("flat", g.Reshape((64 * 25,)), ["sum2"])
    last = "flat"
    if joined:
        graph.add("pixels", g.Reshape((1200,)), ["input"])
        last = graph.add("both", g.Concat(0), ["flat", "pixels"])
    features = graph[last].shape[0]
    graph.add("dense", g.Dense(numbers(rng, (classes, features))), [last])
    return graph


def stages(graph: Graph) -> list[tuple[int, str | None]]:
    """Samples at once, and the node at which a stage ends."""
    compiled = compile_plan(graph, assign(preset("epsilon_plus"), graph))
    return [(at_once, compiled.step_nodes[last - 1]) for _, last, at_once in compiled.plan.stages]


@pytest.fixture(autouse=True)
def all_cores_afterwards() -> Iterator[None]:
    yield
    relprop.set_threads(os.cpu_count() or 1)


def test_large_maps_run_alone_and_heavy_weights_for_all() -> None:
    assert stages(network(10)) == [(1, "sum1"), (2, "dense")]
    assert stages(network(1000)) == [(1, "sum1"), (0, "dense")]


def test_where_two_tensors_lead_on_there_is_no_cut() -> None:
    assert [end for _, end in stages(network(10, joined=True))] == ["dense"]


@pytest.mark.parametrize("classes", [10, 1000])
@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "alpha2_beta1", "gradient"])
def test_no_result_depends_on_how_samples_are_shared(classes: int, composite: str) -> None:
    explainer = Explainer(network(classes), composite)
    nodes = ["relu1", "sum1", "strided", "sum2", "flat"]
    relprop.set_threads(1)
    expected = [explainer(IMAGES[i : i + 1], 3, intermediate=nodes) for i in range(len(IMAGES))]
    for threads in (1, 2, 3, 5):
        relprop.set_threads(threads)
        for n in range(1, len(IMAGES) + 1):
            found = explainer(IMAGES[:n], 3, intermediate=nodes)
            for i, one in enumerate(expected[:n]):
                np.testing.assert_array_equal(found.relevance[i], one.relevance[0])
                np.testing.assert_array_equal(found.scores[i], one.scores[0])
                for node, relevance in one.intermediate.items():
                    np.testing.assert_array_equal(found.intermediate[node][i], relevance[0])
                for node, value in one.activations.items():
                    np.testing.assert_array_equal(found.activations[node][i], value[0])
                if composite != "gradient":
                    assert found.ledger.closure_error[i] == one.ledger.closure_error[0]
