"""Whoever completes the relevance of a layer's output sends the layer its message."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from branching_networks import BRANCHING
from cases import WITH_LEDGER, numbers
from relprop import Explainer, Graph
from relprop import graph as g
from relprop.compile import compile_plan
from relprop.composites import assign, parameters, preset
from test_branching_networks import BOX, graph_of, inputs_of, target_of

CHUNK = 6 * 2**-24
"""What the float32 sum of a chunk's 32 values may be off by: three roundings for four of them one
after the other, as a GPU's thread has them, and three over eight lanes. Chunks are added in
float64."""

ENDS = [(name, output) for name, network in BRANCHING.items() for output in network.outputs]


def conv(to: int, of: int, side: int, groups: int = 1, stride: int = 1) -> g.Conv:
    rng = np.random.default_rng(to + of)
    weight = numbers(rng, (to, of // groups, side, side)) * np.float32(0.2)
    padding = ((side // 2,) * 2,) * 2
    return g.Conv(weight, numbers(rng, (to,)), (stride,) * 2, padding, groups=groups)


def network() -> Graph:
    """Layers whose message is sent, and others that have to compute their own."""
    graph = Graph()
    graph.add("input", g.Input((3, 12, 12)))

    def add(name: str, operator: g.Operator, *inputs: str, relu: bool = False) -> None:
        graph.add(name, operator, list(inputs))
        if relu:
            graph.add(f"{name}.relu", g.Activation("relu"), [name])

    add("stem", conv(32, 3, 3), "input", relu=True)
    add("reduce", conv(8, 32, 1), "stem.relu", relu=True)
    add("depthwise", conv(8, 8, 3, groups=8), "reduce.relu", relu=True)
    add("expand", conv(32, 8, 1), "depthwise.relu")
    add("sum", g.Add(), "expand", "stem.relu", relu=True)
    add("overlapping", g.MaxPool((3, 3), (1, 1), ((1, 1), (1, 1))), "sum.relu")
    add("left", conv(32, 32, 1), "overlapping", relu=True)
    add("right", conv(8, 32, 3), "overlapping", relu=True)
    add("joined", g.Concat(0), "left.relu", "right.relu")
    add("strided", conv(40, 40, 3, stride=2), "joined", relu=True)
    add("grouped", conv(40, 40, 1, groups=2), "strided.relu")
    add("tanh", g.Activation("tanh"), "grouped")
    add("smooth", conv(40, 40, 1), "tanh")
    add("twice", g.Add(), "smooth", "smooth", relu=True)
    add("plain", conv(40, 40, 1), "twice.relu")
    add("last", conv(6, 40, 1), "plain")
    add("mean", g.AvgPool((6, 6), (6, 6)), "last")
    add("flat", g.Reshape((6,)), "mean")
    rng = np.random.default_rng(5)
    add("wide", g.Dense(numbers(rng, (75, 6)), numbers(rng, (75,))), "flat", relu=True)
    add("hidden", g.Dense(numbers(rng, (40, 75)), numbers(rng, (40,))), "wide.relu", relu=True)
    add("scores", g.Dense(numbers(rng, (6, 40))), "hidden.relu")
    return graph


def senders(graph: Graph, composite: str) -> dict[str, str]:
    compiled = compile_plan(graph, assign(preset(composite), graph))
    names = compiled.step_nodes
    return {
        names[s]: names[sender] for s, sender in enumerate(compiled.plan.senders) if sender >= 0
    }


def test_the_last_to_hand_relevance_to_a_layer_sends_its_message() -> None:
    assert senders(network(), "epsilon") == {
        "stem": "reduce",  # the sum hands its share down before
        "reduce": "depthwise",
        "depthwise": "expand",
        "expand": "sum",
        "sum": "overlapping",
        "left": "joined",
        "right": "joined",
        # not strided, whose reader has groups; nor grouped, whose values tanh changes; nor smooth,
        # which is read twice; nor last, below a pool
        "twice": "plain",
        "plain": "last",
        "wide": "hidden",
        "hidden": "scores",
    }


def test_other_rules_compute_their_own_message() -> None:
    assert senders(network(), "alpha2_beta1") == {"sum": "overlapping", "twice": "plain"}
    assert senders(network(), "gradient") == {}


@pytest.mark.parametrize("composite", WITH_LEDGER)
@pytest.mark.parametrize(("name", "output"), [("here", ""), *ENDS])
def test_nothing_depends_on_who_computes_a_message(name: str, output: str, composite: str) -> None:
    box = BOX if "low" in parameters(composite) else {}
    if name == "here":
        explainer = Explainer(network(), composite, **box)
        x = {"input": numbers(np.random.default_rng(0), (3, 3, 12, 12))}
    else:
        explainer, x = Explainer(graph_of(name), composite, output=output, **box), inputs_of(name)
    target = target_of(explainer, x)
    names = [node.name for node in explainer.graph if node.name not in x]
    sent = explainer(x, target)
    apart = explainer(x, target, intermediate=names)  # who asks for relevance finds no messages
    for key in x:
        np.testing.assert_array_equal(sent.relevance[key], apart.relevance[key])
    assert (sent.ledger.closure_error <= 1e-6).all()
    for i, node in enumerate(sent.ledger.nodes):
        if node not in names:
            continue
        r = apart.intermediate[node].astype(np.float64)
        magnitude = reference.per_sample(np.abs(r))
        for ledger in (sent.ledger, apart.ledger):
            off = np.abs(ledger.relevance[:, i] - reference.per_sample(r))
            assert (off <= CHUNK * magnitude).all(), node
            np.testing.assert_allclose(ledger.magnitude[:, i], magnitude, rtol=CHUNK)
    for account in ("bias", "stabilizer", "constants", "zero"):
        off = np.abs(getattr(sent.ledger, account) - getattr(apart.ledger, account))
        assert (off <= 1e-7 * np.maximum(sent.ledger.magnitude, 1e-30)).all(), account


@pytest.mark.parametrize("without", ["messages", "fold", "patches", "patches,messages,fold"])
def test_fast_paths_change_nothing_but_the_time(
    without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = {"input": numbers(np.random.default_rng(0), (3, 3, 12, 12))}
    fast = Explainer(network(), "epsilon")(x)
    monkeypatch.setenv("RELPROP_WITHOUT", without)
    assert senders(network(), "epsilon") == {} or "messages" not in without
    plain = Explainer(network(), "epsilon")(x)
    scale = np.abs(plain.relevance["input"]).max()
    same = 1e-6 * scale if "fold" in without else 0.0  # sums in another order
    assert np.abs(fast.relevance["input"] - plain.relevance["input"]).max() <= same


def test_unknown_fast_paths_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELPROP_WITHOUT", "messages,speed")
    with pytest.raises(RuntimeError, match=r'RELPROP_WITHOUT must name .* not "speed"\.'):
        Explainer(network(), "epsilon")
